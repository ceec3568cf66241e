package directory

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fairleadhq/fairlead/relay/store"
)

// Change is what a request has to its change beside the change itself. One request has one, and it counts once.
type Change struct {
	// If is its condition, nil for none: judged on the very state that is changed, after everything else that could refuse the
	// change, and before anything of it counts.
	If func(*Snapshot) error
	// Repeat, if set, is noted in the transaction of the change.
	Repeat *Repeat

	done bool
}

type changeKey struct{}

// WithChange puts a condition, or a key to repeat them under, on the changes that are made with the context.
func WithChange(ctx context.Context, c *Change) context.Context {
	return context.WithValue(ctx, changeKey{}, c)
}

// ChangeOf gives what WithChange took; the zero value without.
func ChangeOf(ctx context.Context) (Change, bool) {
	c, ok := ctx.Value(changeKey{}).(*Change)
	if !ok {
		return Change{}, false
	}
	return *c, true
}

// Check judges the condition of a context if no change was made: one that would have changed nothing is refused all the same.
func (d *Directory) Check(ctx context.Context) error {
	if c := openChange(ctx); c != nil && c.If != nil {
		return c.If(d.Snapshot())
	}
	return nil
}

// openChange gives what is still to be done beside a change, nil for nothing.
func openChange(ctx context.Context) *Change {
	if c, _ := ctx.Value(changeKey{}).(*Change); c != nil && (c.If != nil || c.Repeat != nil) && !c.done {
		return c
	}
	return nil
}

// write is a write transaction with what its context has to it. The snapshot that the condition sees is the state that the
// transaction changes: else both are tried again.
func (d *Directory) write(ctx context.Context, f func(*store.Tx) error) (int64, error) {
	c := openChange(ctx)
	if c == nil {
		return d.store.Write(ctx, f)
	}
	for range 10 {
		var behind int64
		n, err := d.store.Write(ctx, func(tx *store.Tx) error {
			if err := f(tx); err != nil {
				return err
			}
			if c.Repeat != nil {
				if err := d.note(tx, c.Repeat); err != nil {
					return err
				}
			}
			if c.If == nil {
				return nil
			}
			s := d.Snapshot()
			generation, err := tx.Generation()
			if err != nil {
				return err
			}
			if s.Generation != generation {
				behind = generation
				return errBehind
			}
			return c.If(s)
		})
		if behind == 0 {
			c.done = err == nil
			return n, err
		}
		if err := d.reload(ctx, behind); err != nil {
			return 0, err
		}
	}
	return 0, tooFast()
}

// tag makes an entity tag (RFC 9110, 8.8.3) of a thing's state: as it was set, not as it is observed. Sealed bytes differ with
// each write and tell nothing; what else goes in is told to whoever is told the tag.
func tag(parts ...any) string {
	b, err := json.Marshal(parts)
	if err != nil { // no part of ours
		panic(fmt.Sprintf("directory: %v", err))
	}
	sum := sha256.Sum256(b)
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:15]) + `"`
}

// ETag names the workspace.
func (w *Workspace) ETag() string { return tag("workspace", w.ID, w.Name) }

// AllowlistETag names the state of all allowlists of the workspace.
func (w *Workspace) AllowlistETag() string {
	parts := []any{"allowlist", w.ID}
	for _, r := range w.allowRows {
		parts = append(parts, r.ID, r.Sealed)
	}
	return tag(parts...)
}

// SignInETag names what the workspace demands of who signs in.
func (w *Workspace) SignInETag() string { return tag("sign-in policy", w.ID, w.SignIn) }

// BudgetETag names the workspace's own limits.
func (w *Workspace) BudgetETag() string { return tag("budget", w.ID, w.Budget) }

// BudgetETag names the connection's limits.
func (c *Connection) BudgetETag() string { return tag("budget", c.ID, c.Budget) }

// ETag names the state of the connection, its place and its gateway, and not of its budget.
func (c *Connection) ETag() string {
	parts := []any{"connection", c.ID, c.sealed}
	if c.Gateway != nil {
		parts = append(parts, c.Gateway.sealed)
	}
	if c.Project != nil {
		parts = append(parts, "in", c.Scope())
	}
	return tag(parts...)
}

// ETag names the group. Its agents do not count.
func (g *Group) ETag() string { return tag("group", g.ID, g.sealed) }

// ETag names the state that admins set of the agent: group, name, whether it is disabled.
func (a *Agent) ETag() string { return tag("agent", a.ID, a.Group, a.Name, a.Disabled) }

// ETag names the join token.
func (t JoinToken) ETag() string { return tag("join token", t.ID, t.UsedBy) }

// ETag names the token, and whether it is revoked.
func (t *Token) ETag() string { return tag("token", t.ID, t.sealed, t.Revoked) }

// ETag names the state of the role.
func (r *Role) ETag() string { return tag("role", r.ID, r.sealed) }

// ETag names the state of the team with its members.
func (t *Team) ETag() string {
	members := []string{}
	for _, p := range t.Members {
		members = append(members, p.ID)
	}
	return tag("team", t.ID, t.sealed, members)
}

// ETag names the grant, which never changes.
func (g *Grant) ETag() string { return tag("grant", g.ID, g.row.Tag) }

// ETag names the session.
func (s *Session) ETag() string { return tag("session", s.ID) }

// UserETag names the state of a user: its own grants, whether it is disabled, and which credentials it has.
func (w *Workspace) UserETag(p *Principal) string {
	grants := []string{}
	for _, g := range p.Grants {
		if g.Team == "" { // a team's are the team's
			grants = append(grants, g.ID)
		}
	}
	if q := w.people[p.ID]; q != nil {
		return tag("user", p.ID, p.sealed, p.Disabled, grants, q.PasswordSet, q.SecondFactor, q.InvitedUntil, q.emailSet, passkeyTags(q))
	}
	return tag("user", p.ID, p.sealed, p.Disabled, grants)
}

// ETag names the state of a person's own account.
func (p *Person) ETag() string {
	return tag("account", p.ID, p.PasswordSet, p.SecondFactor, p.Recovery, passkeyTags(p), p.Email)
}

var errBehind = errors.New("the state changed meanwhile")
