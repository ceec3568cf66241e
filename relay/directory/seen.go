package directory

import (
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// MayNot says that somebody's rights do not reach an action.
func MayNot(a authz.Action, d authz.Decision) *protocol.Error {
	return limitedBy(d.Limited, &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Message: "you may not do this: " + d.Reason,
		Hint: "it wants the action " + string(a) + "; an admin of the workspace can give a role that has it"})
}

// view is what somebody may see of a workspace: what they may not see answers as what is not there. The zero value sees nothing.
type view struct {
	who authz.Principal
	at  authz.At
	all bool // of who runs the relay's host
}

func (s view) connection(w *Workspace, nameOrID string) (*Connection, error) {
	if s.all {
		return w.Connection(nameOrID)
	}
	return w.SeenConnection(s.who, s.at, nameOrID)
}

func (s view) project(w *Workspace, nameOrID string) (*Project, error) {
	if s.all {
		return w.Project(nameOrID)
	}
	return w.SeenProject(s.who, s.at, nameOrID)
}

// principal reports whether one may see a principal. Who lists tokens, teams, or the grants of all, sees whose they are.
func (s view) principal(w *Workspace, p *Principal) bool {
	reads := []authz.Action{authz.ServicesRead, authz.TokensRead, authz.TeamsRead, authz.GrantsRead}
	if w.people[p.ID] != nil {
		reads[0] = authz.UsersRead
	}
	for _, a := range reads {
		if authz.Decide(s.who, a, authz.Scope{Workspace: w.ID}, s.at).Allow {
			return true
		}
	}
	return s.all || p.ID == s.who.ID
}

// refused is the refusal of an act for a principal: to who may not see it, it is not there.
func (s view) refused(w *Workspace, p *Principal, err error) error {
	if e := protocol.AsError(err); e != nil && e.Code == protocol.CodeDenied && !s.principal(w, p) {
		return noPrincipal()
	}
	return err
}

// Sees reports whether somebody may see the connection.
func (c *Connection) Sees(who authz.Principal, at authz.At) bool {
	return authz.Decide(who, authz.ConnectionsRead, c.Scope(), at).Allow
}

// SeenConnection finds a connection (name or id) for somebody: what they may not see is not there (not_found).
func (w *Workspace) SeenConnection(who authz.Principal, at authz.At, nameOrID string) (*Connection, error) {
	c, err := w.Connection(nameOrID)
	if err == nil && !c.Sees(who, at) {
		return nil, NoConnection()
	}
	return c, err
}

// SeenProject finds a project (name or id) for somebody: what they may not see is not there (not_found).
func (w *Workspace) SeenProject(who authz.Principal, at authz.At, nameOrID string) (*Project, error) {
	p, err := w.Project(nameOrID)
	if err == nil && !p.Sees(who, at) {
		return nil, noProject()
	}
	return p, err
}

// DecideOn finds a connection (name or id) and decides an action on it. To who neither may do it nor see the connection, it is not
// there (not_found).
func (w *Workspace) DecideOn(who authz.Principal, a authz.Action, nameOrID string, at authz.At) (*Connection, authz.Decision, error) {
	c, err := w.Connection(nameOrID)
	if err != nil {
		return nil, authz.Decision{}, err
	}
	d := authz.Decide(who, a, c.Scope(), at)
	if !d.Allow && !c.Sees(who, at) {
		return nil, d, NoConnection()
	}
	return c, d, nil
}

// projectFor finds a project (name or id) for who asks for a change of it, as both stand now.
func (w *Workspace) projectFor(by By, project string) (authz.Principal, *Project, error) {
	who, err := w.asker(by)
	if err != nil {
		return who, nil, err
	}
	p, err := w.SeenProject(who, by.At, project)
	return who, p, err
}

// mayDo refuses who may not do an action on a scope.
func mayDo(a authz.Action, who authz.Principal, s authz.Scope, at authz.At) error {
	if d := authz.Decide(who, a, s, at); !d.Allow {
		return MayNot(a, d)
	}
	return nil
}
