package directory

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
)

// Scope is what decides about a group, its agents and its join tokens: the environment that it is of. A group of none serves all of them,
// so it is the workspace's.
func (g *Group) Scope() authz.Scope {
	return authz.Scope{Workspace: g.Workspace, Environment: g.Environment}
}

// Sees reports whether somebody may see the group.
func (g *Group) Sees(who authz.Principal, at authz.At) bool {
	return authz.Decide(who, authz.GroupsRead, g.Scope(), at).Allow
}

// ScopeOfGroup is the scope of a group (id), of what is in it, too.
func (w *Workspace) ScopeOfGroup(id string) authz.Scope {
	if g := w.groups[id]; g != nil {
		return g.Scope()
	}
	return authz.Scope{Workspace: w.ID}
}

// SeesAgent reports whether somebody may see an agent of the workspace.
func (w *Workspace) SeesAgent(who authz.Principal, at authz.At, a *Agent) bool {
	return authz.Decide(who, authz.AgentsRead, w.ScopeOfGroup(a.Group), at).Allow
}

// SeenAgent finds an agent for somebody: what they may not see is not there (not_found).
func (w *Workspace) SeenAgent(who authz.Principal, at authz.At, id string) (*Agent, error) {
	a, err := w.Agent(id)
	if err == nil && !w.SeesAgent(who, at, a) {
		return nil, noAgent()
	}
	return a, err
}

// SeesJoinToken reports whether somebody may see a join token of the workspace.
func (w *Workspace) SeesJoinToken(who authz.Principal, at authz.At, t JoinToken) bool {
	return authz.Decide(who, authz.JoinTokensRead, w.ScopeOfGroup(t.Group), at).Allow
}

func noJoinToken() *protocol.Error {
	return protocol.Errorf(protocol.CodeNotFound, "no such join token")
}

// mayOn refuses who may not do an action on what stands on a scope: as missing, if it may not view it either.
func mayOn(who authz.Principal, at authz.At, a, view authz.Action, s authz.Scope, missing *protocol.Error) error {
	switch d := authz.Decide(who, a, s, at); {
	case d.Allow:
		return nil
	case authz.Decide(who, view, s, at).Allow:
		return MayNot(a, d)
	}
	return missing
}

// mayMakeGroup refuses who may not make a group of an environment, or of none. Without by, nobody is judged.
func (w *Workspace) mayMakeGroup(by *By, in authz.Environment) error {
	if by == nil {
		return nil
	}
	who, err := w.asker(*by)
	if err != nil {
		return err
	}
	return mayDo(authz.GroupsCreate, who, authz.Scope{Workspace: w.ID, Environment: in}, by.At)
}

// groupFor finds a group (name or id) for who asks for an action on it. Without by, nobody is judged.
func (w *Workspace) groupFor(by *By, a authz.Action, group string) (*Group, error) {
	if by == nil {
		return w.Group(group)
	}
	who, err := w.asker(*by)
	if err != nil {
		return nil, err
	}
	g, err := w.Group(group)
	if err == nil {
		err = mayOn(who, by.At, a, authz.GroupsRead, g.Scope(), noGroup())
	}
	return g, err
}

// mayOnAgent refuses who may not do an action on an agent. Without by, nobody is judged.
func (w *Workspace) mayOnAgent(by *By, a authz.Action, id string) error {
	if by == nil {
		return nil
	}
	who, err := w.asker(*by)
	if err != nil {
		return err
	}
	of, err := w.Agent(id)
	if err != nil {
		return err
	}
	return mayOn(who, by.At, a, authz.AgentsRead, w.ScopeOfGroup(of.Group), noAgent())
}

// mayJoin refuses an address that no agent may come from, and a join token whose maker may make none for the group any more: gone,
// disabled, or without the right. From where the maker might is not asked, for it is another who comes. One of the relay's own machine has
// no maker here.
func (w *Workspace) mayJoin(t store.JoinToken, from netip.Addr, at time.Time) error {
	if !w.Admits(Sites, from) {
		return outside(w, from)
	}
	if !strings.HasPrefix(t.CreatedBy, "usr_") {
		return nil
	}
	on := w.ScopeOfGroup(t.Group)
	if p := w.Principal(t.CreatedBy); p != nil && !p.Disabled && slices.ContainsFunc(p.Grants, func(g authz.Grant) bool { return g.Gives(p.Principal, authz.JoinTokensCreate, on, at) }) {
		return nil
	}
	return &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "the join token counts no more: who made it may make none for its agent group any more",
		Hint: "have another admin make a new one: fairlead join-token create --group GROUP"}
}

// mayWithdraw refuses who may not delete a join token. Without by, nobody is judged.
func (w *Workspace) mayWithdraw(by *By, id string) error {
	if by == nil {
		return nil
	}
	who, err := w.asker(*by)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(w.JoinTokens, func(t JoinToken) bool { return t.ID == id })
	if i < 0 {
		return noJoinToken()
	}
	return mayOn(who, by.At, authz.JoinTokensDelete, authz.JoinTokensRead, w.ScopeOfGroup(w.JoinTokens[i].Group), noJoinToken())
}

// CreateGroupBy is CreateGroupIn as somebody asks for it, who must hold GroupsCreate on the environment, and for a group of none on the
// workspace.
func (d *Directory) CreateGroupBy(ctx context.Context, by By, workspace, name string, in authz.Environment) (*Group, error) {
	return d.createGroup(ctx, &by, workspace, name, in)
}

// DeleteGroupBy is DeleteGroup as somebody asks for it, who must hold GroupsDelete on the group. To who may not see it either, it is not
// there (not_found); so it is with what follows.
func (d *Directory) DeleteGroupBy(ctx context.Context, by By, workspace, group string) error {
	return d.deleteGroup(ctx, &by, workspace, group)
}

// CreateJoinTokenBy is CreateJoinToken as somebody asks for it, who must hold JoinTokensCreate on the group.
func (d *Directory) CreateJoinTokenBy(ctx context.Context, by By, workspace, group string, life time.Duration) (JoinToken, secret.Bytes, error) {
	return d.createJoinToken(ctx, &by, workspace, group, life, by.ID)
}

// DeleteJoinTokenBy is DeleteJoinToken as somebody asks for it, who must hold JoinTokensDelete on its group.
func (d *Directory) DeleteJoinTokenBy(ctx context.Context, by By, workspace, id string) error {
	return d.deleteJoinToken(ctx, &by, workspace, id)
}

// DisableAgentBy is DisableAgent as somebody asks for it, who must hold AgentsEdit on the agent's group.
func (d *Directory) DisableAgentBy(ctx context.Context, by By, workspace, id string) error {
	return d.setAgentState(ctx, &by, workspace, id, disabledNow)
}

// EnableAgentBy is EnableAgent as somebody asks for it, who must hold AgentsEdit on the agent's group.
func (d *Directory) EnableAgentBy(ctx context.Context, by By, workspace, id string) error {
	return d.setAgentState(ctx, &by, workspace, id, enabledNow)
}

// DeleteAgentBy is DeleteAgent as somebody asks for it, who must hold AgentsDelete on the agent's group.
func (d *Directory) DeleteAgentBy(ctx context.Context, by By, workspace, id string) error {
	return d.deleteAgent(ctx, &by, workspace, id)
}
