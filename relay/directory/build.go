package directory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Bodies that are sealed as JSON. A field is only ever added.
type (
	nameBody struct {
		Name string `json:"name"`
	}
	groupBody struct {
		Name        string            `json:"name"`
		Environment authz.Environment `json:"environment,omitempty"`
	}
	// tokenBody repeats what decides, so that digest and hash moved to another token's row are noticed.
	tokenBody struct {
		Name      string    `json:"name"`
		Principal string    `json:"principal"`
		Digest    []byte    `json:"digest"`
		Verifier  string    `json:"verifier"`
		Expires   int64     `json:"expires"`
		Only      *onlyBody `json:"only,omitempty"`
	}
	// allowBody is all lists of a workspace, or, of an earlier release, one prefix.
	allowBody struct {
		Prefix netip.Prefix            `json:"prefix,omitzero"`
		Lists  map[Side][]netip.Prefix `json:"lists,omitempty"`
	}
)

func place(workspace, table, row string, version int64) vault.Place {
	return vault.Place{Workspace: workspace, Table: table, Row: row, Column: "sealed", Version: version}
}

func seal(v *vault.Vault, p vault.Place, body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", p.Table, p.Row, err)
	}
	defer clear(b)
	return v.Seal(p, b)
}

func open(v *vault.Vault, p vault.Place, sealed []byte, body any) error {
	b, err := v.Open(p, sealed)
	if err != nil {
		return fmt.Errorf("open %s %s: %w", p.Table, p.Row, err)
	}
	defer clear(b)
	if err := json.Unmarshal(b, body); err != nil {
		return fmt.Errorf("decode %s %s: %w", p.Table, p.Row, err)
	}
	return nil
}

// build makes the snapshot of a state. Rows that did not change since prev are taken from it, so that a change costs no more
// decryption than what it changed. A row that does not open is an error: better no new snapshot than one with a hole.
func build(ctx context.Context, v *vault.Vault, rp string, st *store.State, prev *Snapshot) (*Snapshot, error) {
	s, err := begin(ctx, v, rp, st)
	if err != nil {
		return nil, err
	}
	for _, r := range st.Relays {
		out := Relay{ID: r.ID, Created: fromMs(r.Created), version: r.Version}
		if err := open(v, place("", "relays", r.ID, r.Version), r.Sealed, &out); err != nil {
			return nil, err
		}
		s.Relays = append(s.Relays, out)
	}
	for _, step := range []func(*vault.Vault, *store.State, *Snapshot) error{
		s.addGroups, s.addConnections, s.addProjects, s.addGateways, s.addBudgets, s.addAgents, s.addJoinTokens, s.addRoles, s.addPrincipals, s.addTokens, s.addPeople, s.addAllowlists, s.addDomains,
	} {
		if err := step(v, st, prev); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(s.workspaces, func(a, b *Workspace) int { return cmp.Compare(a.Name, b.Name) })
	for _, w := range s.workspaces {
		w.sortRights()
		slices.SortFunc(w.Groups, func(a, b *Group) int { return cmp.Compare(a.Name, b.Name) })
		slices.SortFunc(w.Connections, func(a, b *Connection) int { return cmp.Compare(a.Name, b.Name) })
		slices.SortFunc(w.Principals, func(a, b *Principal) int { return cmp.Compare(a.Name, b.Name) })
		slices.SortFunc(w.Tokens, func(a, b *Token) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	}
	return s, nil
}

// begin makes a snapshot of the workspaces that there are, with nothing in them.
func begin(ctx context.Context, v *vault.Vault, rp string, st *store.State) (*Snapshot, error) {
	in := st.Installation
	if err := v.LoadKey(ctx, in.ID, "", in.KeyWrapped); err != nil {
		return nil, err
	}
	s := &Snapshot{
		Generation: st.Generation, Installation: in.ID, Created: fromMs(in.Created), rp: rp,
		byName: map[string]*Workspace{}, byID: map[string]*Workspace{},
		agents: make(map[string]*Agent, len(st.Agents)), tokens: make(map[[32]byte]*Token, len(st.APITokens)),
		digest:        func(text string) ([32]byte, error) { return v.Digest("", vault.APIToken, text) },
		sessionDigest: func(text string) ([32]byte, error) { return v.Digest("", vault.Session, text) },
		passkeyDigest: func(id string) ([32]byte, error) { return v.Digest("", vault.PasskeyID, id) },
	}
	for _, r := range st.Workspaces {
		if err := v.LoadKey(ctx, in.ID, r.ID, r.KeyWrapped); err != nil {
			return nil, err
		}
		var body nameBody
		if err := open(v, place(r.ID, "workspaces", r.ID, r.Version), r.Sealed, &body); err != nil {
			return nil, err
		}
		w := &Workspace{ID: r.ID, Name: body.Name, Created: fromMs(r.Created), groups: map[string]*Group{},
			connections: map[string]*Connection{}, principals: map[string]*Principal{}, agents: map[string]*Agent{},
			members: map[string][]*Agent{}, roles: map[string]*Role{}, teams: map[string]*Team{}, grants: map[string]*Grant{},
			projects: map[string]*Project{}, folders: map[string]*Folder{},
			people: map[string]*Person{}, users: map[string]*Principal{}}
		s.byID[w.ID], s.byName[w.Name] = w, w
		s.workspaces = append(s.workspaces, w)
	}
	return s, nil
}

// buildRights is build for a state of LoadRights: it knows who may do what and comes in how, and nothing else.
func buildRights(ctx context.Context, v *vault.Vault, rp string, st *store.State, prev *Snapshot) (*Snapshot, error) {
	s, err := begin(ctx, v, rp, st)
	if err != nil {
		return nil, err
	}
	for _, step := range []func(*vault.Vault, *store.State, *Snapshot) error{s.addRoles, s.addPrincipals, s.addTokens, s.addPeople} {
		if err := step(v, st, prev); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// in finds the workspace of a row; foreign keys hold that it is there.
func (s *Snapshot) in(table, row, workspace string) (*Workspace, error) {
	if w := s.byID[workspace]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("%s %s belongs to no workspace", table, row)
}

// before gives the workspace as it was in an earlier snapshot, or an empty one.
func (s *Snapshot) before(workspace string) *Workspace {
	if s != nil && s.byID[workspace] != nil {
		return s.byID[workspace]
	}
	return &Workspace{}
}

func (s *Snapshot) addGroups(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.Groups {
		w, err := s.in("group", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		g := prev.before(r.Workspace).groups[r.ID]
		if g == nil || !bytes.Equal(g.sealed, r.Sealed) {
			var body groupBody
			if err := open(v, place(r.Workspace, "agent_groups", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			g = &Group{ID: r.ID, Workspace: r.Workspace, Name: body.Name, Environment: body.Environment, Created: fromMs(r.Created), sealed: r.Sealed}
		}
		w.Groups = append(w.Groups, g)
		w.groups[g.ID], w.groups[g.Name] = g, g
	}
	return nil
}

func (s *Snapshot) addJoinTokens(_ *vault.Vault, st *store.State, prev *Snapshot) error {
	if prev != nil && st.Same("join_tokens") {
		for _, w := range s.workspaces {
			w.JoinTokens = prev.before(w.ID).JoinTokens
		}
		return nil
	}
	for _, r := range st.JoinTokens {
		w, err := s.in("join token", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		w.JoinTokens = append(w.JoinTokens, JoinToken{ID: r.ID, Workspace: r.Workspace, Group: r.Group, Created: fromMs(r.Created),
			CreatedBy: r.CreatedBy, Expires: fromMs(r.Expires), UsedAt: fromMs(r.UsedAt), UsedBy: r.UsedBy})
	}
	for _, w := range s.workspaces {
		slices.SortFunc(w.JoinTokens, func(a, b JoinToken) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	}
	return nil
}

func (s *Snapshot) addConnections(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.Connections {
		w, err := s.in("connection", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		// Always a new one: its gateway may be another. Only what costs is taken over.
		c := &Connection{ID: r.ID, Workspace: r.Workspace, Group: r.Group, Created: fromMs(r.Created), sealed: r.Sealed}
		if old := prev.before(r.Workspace).connections[r.ID]; old != nil && bytes.Equal(old.sealed, r.Sealed) {
			c.ConnectionBody = old.ConnectionBody
		} else {
			if err := open(v, place(r.Workspace, "connections", r.ID, r.Version), r.Sealed, &c.ConnectionBody); err != nil {
				return err
			}
			if c.Environment == "" { // of a release that had none
				c.Environment = authz.Production
			}
		}
		w.Connections = append(w.Connections, c)
		w.connections[c.ID], w.connections[c.Name] = c, c
	}
	return nil
}

func (s *Snapshot) addAgents(v *vault.Vault, st *store.State, prev *Snapshot) error {
	if prev != nil && st.Same("agents", "certificates") {
		s.agents = prev.agents
		for _, w := range s.workspaces {
			if old := prev.byID[w.ID]; old != nil {
				w.Agents, w.agents, w.members = old.Agents, old.agents, old.members
			}
		}
		return nil
	}
	certs := map[string][]Certificate{}
	for _, r := range st.Certificates {
		certs[r.Agent] = append(certs[r.Agent], Certificate{Serial: r.Serial, SPKI: r.SPKI, Issued: fromMs(r.Issued),
			NotAfter: fromMs(r.NotAfter), Proven: fromMs(r.Proven)})
	}
	for _, r := range st.Agents {
		w, err := s.in("agent", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		a := &Agent{ID: r.ID, Workspace: r.Workspace, Group: r.Group, Created: fromMs(r.Created), Disabled: r.State == stateDisabled,
			Certificates: certs[r.ID], sealed: r.Sealed}
		old := (*Agent)(nil)
		if prev != nil {
			old = prev.agents[r.ID]
		}
		if old != nil && bytes.Equal(old.sealed, r.Sealed) {
			a.agentBody, a.live = old.agentBody, old.live
			a.live.merge(r.FirstSeen, r.LastSeen, nil)
		} else {
			if err := open(v, place(r.Workspace, "agents", r.ID, r.Version), r.Sealed, &a.agentBody); err != nil {
				return err
			}
			if old != nil {
				a.live = old.live
			} else {
				a.live = &live{}
			}
			a.live.merge(r.FirstSeen, r.LastSeen, &a.agentBody.Facts)
		}
		s.agents[a.ID], w.agents[a.ID] = a, a
		w.Agents = append(w.Agents, a)
		w.members[a.Group] = append(w.members[a.Group], a)
	}
	for _, w := range s.workspaces {
		slices.SortFunc(w.Agents, func(a, b *Agent) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	}
	return nil
}

func (s *Snapshot) addTokens(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.APITokens {
		w, err := s.in("token", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		p := w.principals[r.Principal]
		if p == nil || len(r.Digest) != 32 {
			return fmt.Errorf("token %s has no principal or no digest", r.ID)
		}
		t := &Token{ID: r.ID, Workspace: r.Workspace, Principal: p, Created: fromMs(r.Created), Expires: fromMs(r.Expires),
			Revoked: fromMs(r.Revoked), digest: [32]byte(r.Digest), verifier: r.Verifier, expires: r.Expires, sealed: r.Sealed}
		old := (*Token)(nil)
		if prev != nil {
			old = prev.tokens[t.digest]
		}
		if old != nil && old.ID == t.ID && bytes.Equal(old.sealed, r.Sealed) && old.verifier == r.Verifier &&
			old.Principal.ID == p.ID && old.expires == r.Expires {
			t.Name, t.only, t.used = old.Name, old.only, old.used
		} else {
			var body tokenBody
			if err := open(v, place(r.Workspace, "api_tokens", r.ID, r.Version), r.Sealed, &body); err != nil {
				return err
			}
			if body.Principal != r.Principal || !bytes.Equal(body.Digest, r.Digest) || body.Verifier != r.Verifier ||
				body.Expires != r.Expires {
				return fmt.Errorf("token %s was not written by a relay of this installation", r.ID)
			}
			t.Name, t.only, t.used = body.Name, body.Only, &usage{}
		}
		t.acting = p.Principal.Limited(t.only.limits())
		t.acting.Token = t.ID
		if t.used.last.Load() < r.LastUsed {
			t.used.last.Store(r.LastUsed)
			if r.LastSource != nil {
				b, err := v.Open(sourcePlace(t), r.LastSource)
				if err != nil {
					return fmt.Errorf("open api_tokens %s: %w", r.ID, err)
				}
				var from netip.Addr
				if err := from.UnmarshalBinary(b); err != nil {
					return fmt.Errorf("decode api_tokens %s: %w", r.ID, err)
				}
				t.used.source.Store(&from)
			}
		}
		if t.used.written.Load() < r.LastUsed {
			t.used.written.Store(r.LastUsed)
		}
		w.Tokens = append(w.Tokens, t)
		s.tokens[t.digest] = t
	}
	return nil
}

// sourcePlace binds the address of a token's last use to the token.
func sourcePlace(t *Token) vault.Place {
	return vault.Place{Workspace: t.Workspace, Table: "api_tokens", Row: t.ID, Column: "last_source", Version: 1}
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// closed is the snapshot of a state that could not be read for too long.
func closed(prev *Snapshot) *Snapshot {
	return &Snapshot{Generation: prev.Generation, Installation: prev.Installation, Created: prev.Created, Relays: prev.Relays, Stale: true}
}

// now is the time that rows are stamped with: milliseconds, like the columns.
func now() time.Time { return time.Now().Truncate(time.Millisecond).UTC() }
