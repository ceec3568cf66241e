package directory

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Limits.
const (
	MaxName          = 64                 // bytes of the name of a workspace, group or connection
	MaxLabel         = 128                // bytes of the name of an agent, principal or token
	MaxJoinTokenLife = 7 * 24 * time.Hour // of a join token
	JoinTokenLife    = time.Hour          // when none is given
)

// checkName admits a letter or digit, then letters, digits and "_-.": names stand in paths and on command lines.
func checkName(s string) error {
	ok := s != "" && len(s) <= MaxName
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && (c == '_' || c == '-' || c == '.')
	}
	if !ok {
		return invalid("the name is not usable", fmt.Sprintf("use 1 to %d letters, digits, '_', '-' or '.', beginning with a letter or digit", MaxName))
	}
	if looksLikeID(s) {
		return invalid("the name looks like an id", "choose one without a prefix and 26 characters")
	}
	return nil
}

// checkLabel admits printable text: labels are shown, never looked up by path.
func checkLabel(s string) error {
	ok := s != "" && len(s) <= MaxLabel && utf8.ValidString(s)
	for _, r := range s {
		ok = ok && unicode.IsPrint(r)
	}
	if !ok {
		return invalid("the name is not usable", fmt.Sprintf("use 1 to %d bytes of printable text", MaxLabel))
	}
	return nil
}

// CreateGroup adds an agent group to a workspace (name or id), whose connections may stand in any environment. It asks for nobody's
// rights, nor does CreateGroupIn: what somebody asks for is CreateGroupBy.
func (d *Directory) CreateGroup(ctx context.Context, workspace, name string) (*Group, error) {
	return d.CreateGroupIn(ctx, workspace, name, "")
}

// CreateGroupIn is CreateGroup for a group whose connections all stand in one environment, for good; "" for any.
func (d *Directory) CreateGroupIn(ctx context.Context, workspace, name string, in authz.Environment) (*Group, error) {
	return d.createGroup(ctx, nil, workspace, name, in)
}

// createGroup judges nobody without by.
func (d *Directory) createGroup(ctx context.Context, by *By, workspace, name string, in authz.Environment) (*Group, error) {
	if in != "" && !slices.Contains(authz.Environments, in) {
		return nil, noEnvironment()
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	id, of := NewID("grp"), ""
	err := d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		of = w.ID
		if err := w.mayMakeGroup(by, in); err != nil { // before anything else, so that it tells nobody which groups there are
			return err
		}
		return as(d.insertGroup(tx, w.ID, id, groupBody{name, in}, now()), protocol.Errorf(protocol.CodeNotFound, "no such workspace"),
			protocol.Errorf(protocol.CodeConflict, "an agent group of this name exists"))
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(of).Group(id)
}

func (d *Directory) insertGroup(tx *store.Tx, workspace, id string, b groupBody, at time.Time) error {
	digest, err := d.vault.Digest(workspace, vault.NameOfGroup, b.Name)
	if err != nil {
		return err
	}
	sealed, err := seal(d.vault, place(workspace, "agent_groups", id, 1), b)
	if err != nil {
		return err
	}
	return tx.InsertGroup(store.Group{ID: id, Workspace: workspace, Created: toMs(at), Version: 1, NameDigest: digest[:], Sealed: sealed})
}

// EnvironmentOf is where a connection of the group stands that asks for an environment, or for none: the group's own, else production.
func (g *Group) EnvironmentOf(asked authz.Environment) authz.Environment {
	return cmp.Or(asked, g.Environment, authz.Production)
}

// DeleteGroup removes a group (name or id) and its join tokens. It refuses (conflict) while agents or connections belong to it. It
// asks for nobody's rights: what somebody asks for is DeleteGroupBy.
func (d *Directory) DeleteGroup(ctx context.Context, workspace, group string) error {
	return d.deleteGroup(ctx, nil, workspace, group)
}

// deleteGroup judges nobody without by.
func (d *Directory) deleteGroup(ctx context.Context, by *By, workspace, group string) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		g, err := w.groupFor(by, authz.GroupsDelete, group)
		if err != nil {
			return err
		}
		agents, connections, err := tx.GroupUse(w.ID, g.ID)
		if err != nil {
			return err
		}
		if agents+connections > 0 {
			return &protocol.Error{Code: protocol.CodeConflict,
				Message: fmt.Sprintf("the agent group has %d agents and %d connections", agents, connections), Hint: "delete them first"}
		}
		return as(tx.DeleteGroup(w.ID, g.ID), noGroup(), nil)
	})
}

func noGroup() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such agent group", Hint: "list them: fairlead groups list"}
}

// CreateConnection adds a connection to a group (name or id): of a profile, or of a host and port, not both. It asks for nobody's
// rights: what somebody asks for is CreateConnectionBy.
func (d *Directory) CreateConnection(ctx context.Context, workspace, group string, b ConnectionBody) (*Connection, error) {
	return d.createConnection(ctx, nil, workspace, group, b, nil)
}

// CreateConnectionBy is CreateConnection as somebody asks for it, who must hold ConnectionsCreate where it shall stand, and may lead
// a connection there (Workspace.mayLead).
func (d *Directory) CreateConnectionBy(ctx context.Context, by By, workspace, group string, b ConnectionBody) (*Connection, error) {
	return d.createConnection(ctx, &by, workspace, group, b, nil)
}

// createConnection runs more in the same transaction, with the ids of workspace and connection. Without by, nobody is judged.
func (d *Directory) createConnection(ctx context.Context, by *By, workspace, group string, b ConnectionBody, more func(tx *store.Tx, workspace, connection string) error) (*Connection, error) {
	if err := checkName(b.Name); err != nil {
		return nil, err
	}
	if b.Environment != "" && !slices.Contains(authz.Environments, b.Environment) {
		return nil, noEnvironment()
	}
	switch {
	case b.Profile != "" && (b.Host != "" || b.Port != 0):
		return nil, invalid("a connection is a profile or a target, not both", "give the profile, or the target's host and port")
	case b.Profile != "":
		if checkName(b.Profile) != nil {
			return nil, invalid("the profile's name is not usable", "give the name as it stands in agent.yaml")
		}
	case b.Host == "" || b.Port == 0:
		return nil, invalid("the connection names no profile and no whole target", "give the profile, or the target's host and port")
	default:
		host, _, err := allowlist.CanonicalHost(b.Host)
		if err != nil {
			return nil, invalid("the target's host is not usable", "give a host name, or an address in its usual form")
		}
		b.Host = host
	}
	id, in := NewID("con"), ""
	err := d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		in = w.ID
		g, gerr := w.Group(group)
		var who authz.Principal
		if by != nil {
			var err error
			if who, err = w.asker(*by); err != nil {
				return err
			}
			if err := w.mayLead(who, g, b, by.At); err != nil { // before anything else, so that it tells nobody which groups there are
				return err
			}
		}
		if gerr != nil {
			return gerr
		}
		b := b
		if b.Environment = g.EnvironmentOf(b.Environment); g.Environment != "" && b.Environment != g.Environment {
			if by != nil && !g.Sees(who, by.At) {
				return noGroup()
			}
			return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("agent group %s is of environment %s, and so are its connections", g.Name, g.Environment),
				Hint: "name a group of environment " + string(b.Environment) + ", or leave the environment out"}
		}
		p, f, err := w.placeFor(by, who, b)
		if err != nil {
			return err
		}
		digest, err := d.vault.Digest(w.ID, vault.NameOfConnection, b.Name)
		if err != nil {
			return err
		}
		sealed, err := seal(d.vault, place(w.ID, "connections", id, 1), b)
		if err != nil {
			return err
		}
		if err := as(tx.InsertConnection(store.Connection{ID: id, Workspace: w.ID, Group: g.ID, Created: toMs(now()), Version: 1,
			NameDigest: digest[:], Sealed: sealed}), noGroup(), protocol.Errorf(protocol.CodeConflict, "a connection of this name exists")); err != nil {
			return err
		}
		if err := d.within(tx, w.ID, QuotaConnections); err != nil {
			return err
		}
		if p != nil {
			if err := d.put(tx, w.ID, id, p, f); err != nil {
				return err
			}
		}
		if more == nil {
			return nil
		}
		return more(tx, w.ID, id)
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(in).Connection(id)
}

// mayLead refuses who may not make a connection to what a group's agents reach; g is nil for a group that is not there. A place in
// the workspace is no boundary towards sites, so the place alone is not enough: whoever makes connections in one project could lead
// one to everything that any site allows. It wants ConnectionsCreate on the workspace, or on the environment that the group is of, or
// on a connection of the same environment that leads to the same already: in another, it would be for others than those who have it.
func (w *Workspace) mayLead(who authz.Principal, g *Group, b ConnectionBody, at authz.At) error {
	limited := false
	holds := func(s authz.Scope) bool {
		d := authz.Decide(who, authz.ConnectionsCreate, s, at)
		limited = limited || d.Limited
		return d.Allow
	}
	switch {
	case holds(authz.Scope{Workspace: w.ID}):
		return nil
	case g == nil:
	case g.Environment != "" && holds(authz.Scope{Workspace: w.ID, Environment: g.Environment}):
		return nil
	case slices.ContainsFunc(w.Connections, func(c *Connection) bool {
		return c.Group == g.ID && c.Environment == g.EnvironmentOf(b.Environment) && c.Profile == b.Profile && c.Host == b.Host && c.Port == b.Port && holds(c.Scope())
	}):
		return nil
	}
	on, to := "on the workspace, on the environment that the agent group is of", "profile"
	if g != nil && g.Sees(who, at) { // else it tells nobody which groups there are
		if on = "on the workspace"; g.Environment != "" {
			on += " or on environment " + string(g.Environment)
		}
	}
	if b.Profile == "" {
		to = "target"
	}
	return limitedBy(limited, &protocol.Error{Code: protocol.CodeDenied, Message: "you may not lead a connection there: what you manage here is only a part of the workspace",
		Hint: "it wants connections.create " + on + ", or on a connection of the same environment to the same " + to + " of the group; have an admin of the workspace make it, or move one here"})
}

// limitedBy says of a refusal that it is the token's limits, where a grant would allow.
func limitedBy(limited bool, e *protocol.Error) *protocol.Error {
	if limited {
		e.Rule, e.Hint = authz.RuleToken, authz.HintToken
	}
	return e
}

// placeFor finds where a new connection shall stand; who must hold ConnectionsCreate there, where somebody asks.
func (w *Workspace) placeFor(by *By, who authz.Principal, b ConnectionBody) (*Project, *Folder, error) {
	if by == nil {
		return w.Place(b.In)
	}
	p, f, d, err := w.DecideAt(who, authz.ConnectionsCreate, b.Environment, b.In, by.At)
	if err == nil && !d.Allow {
		err = MayNot(authz.ConnectionsCreate, d)
	}
	return p, f, err
}

// DeleteConnection removes a connection (name or id) and the grants on it. It asks for nobody's rights: what somebody asks for is
// DeleteConnectionBy.
func (d *Directory) DeleteConnection(ctx context.Context, workspace, connection string) error {
	return d.deleteConnection(ctx, workspace, func(w *Workspace) (*Connection, error) { return w.Connection(connection) })
}

// DeleteConnectionBy is DeleteConnection as somebody asks for it, who must hold ConnectionsDelete on the connection.
func (d *Directory) DeleteConnectionBy(ctx context.Context, by By, workspace, connection string) error {
	return d.deleteConnection(ctx, workspace, func(w *Workspace) (*Connection, error) {
		who, err := w.asker(by)
		if err != nil {
			return nil, err
		}
		c, err := w.SeenConnection(who, by.At, connection)
		if err != nil {
			return nil, err
		}
		if dec := authz.Decide(who, authz.ConnectionsDelete, c.Scope(), by.At); !dec.Allow {
			return nil, MayNot(authz.ConnectionsDelete, dec)
		}
		return c, nil
	})
}

func (d *Directory) deleteConnection(ctx context.Context, workspace string, find func(*Workspace) (*Connection, error)) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		c, err := find(w)
		if err != nil {
			return err
		}
		return as(tx.DeleteConnection(w.ID, c.ID), protocol.Errorf(protocol.CodeNotFound, "no such connection"), nil)
	})
}

// CreateJoinToken makes a single-use ticket for one agent of a group (name or id) and gives its secret, which is not kept. A
// life of 0 means an hour; by is the id of who made it. It asks for nobody's rights: what somebody asks for is CreateJoinTokenBy.
func (d *Directory) CreateJoinToken(ctx context.Context, workspace, group string, life time.Duration, by string) (JoinToken, secret.Bytes, error) {
	return d.createJoinToken(ctx, nil, workspace, group, life, by)
}

// createJoinToken judges nobody without by.
func (d *Directory) createJoinToken(ctx context.Context, by *By, workspace, group string, life time.Duration, maker string) (JoinToken, secret.Bytes, error) {
	if life == 0 {
		life = JoinTokenLife
	}
	if life < time.Second || life > MaxJoinTokenLife {
		return JoinToken{}, secret.Bytes{}, invalid("the join token's life is out of range", "give 1 second to 7 days")
	}
	text := randomText()
	digest, err := d.vault.Digest("", vault.JoinToken, text)
	if err != nil {
		return JoinToken{}, secret.Bytes{}, err
	}
	at := now()
	t := JoinToken{ID: NewID("jtk"), Created: at, CreatedBy: maker, Expires: at.Add(life)}
	err = d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		g, err := w.groupFor(by, authz.JoinTokensCreate, group)
		if err != nil {
			return err
		}
		t.Workspace, t.Group = w.ID, g.ID
		// What has been over for a month tells nobody anything.
		if err := tx.DeleteOldJoinTokens(toMs(at.AddDate(0, -1, 0))); err != nil {
			return err
		}
		return as(tx.InsertJoinToken(store.JoinToken{ID: t.ID, Workspace: w.ID, Group: g.ID, Digest: digest[:], Created: toMs(at),
			CreatedBy: maker, Expires: toMs(t.Expires)}), noGroup(), nil)
	})
	if err != nil {
		return JoinToken{}, secret.Bytes{}, err
	}
	return t, secret.FromString(text), nil
}

// DeleteJoinToken removes a join token, used or not: it admits nobody from now on. It asks for nobody's rights: what somebody
// asks for is DeleteJoinTokenBy.
func (d *Directory) DeleteJoinToken(ctx context.Context, workspace, id string) error {
	return d.deleteJoinToken(ctx, nil, workspace, id)
}

// deleteJoinToken judges nobody without by.
func (d *Directory) deleteJoinToken(ctx context.Context, by *By, workspace, id string) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		if err := w.mayWithdraw(by, id); err != nil {
			return err
		}
		return as(tx.DeleteJoinToken(w.ID, id), noJoinToken(), nil)
	})
}

// randomText is 256 random bits in 43 characters.
func randomText() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// SetAllowlist replaces the list of prefixes that callers of a workspace may come from. Without confirm it refuses (conflict) a
// list that would lock out source, the address that the request came from.
func (d *Directory) SetAllowlist(ctx context.Context, workspace string, prefixes []netip.Prefix, source netip.Addr, confirm bool) error {
	return d.SetSources(ctx, workspace, Callers, prefixes, Callers, source, confirm, nil)
}
