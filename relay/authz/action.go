package authz

import "github.com/fairleadhq/fairlead/protocol"

// Action is a permission. The text is what audit events and the API show: append only, never rename.
type Action string

// Level says what a grant must cover for an action.
type Level int

const (
	// OnWorkspace actions need a grant on the whole workspace.
	OnWorkspace Level = iota
	// OnConnection actions are about one connection: a grant on it or on its workspace will do.
	OnConnection
)

const (
	Query       Action = "connection.query"
	Exec        Action = "connection.exec"
	Transaction Action = "connection.transaction"
	Schema      Action = "connection.schema"
	List        Action = "connection.list"
	Stat        Action = "connection.stat"
	Read        Action = "connection.read"
	Write       Action = "connection.write"
	Delete      Action = "connection.delete"
	Move        Action = "connection.move"
	Mkdir       Action = "connection.mkdir"
	RequestGet  Action = "connection.request_get"
	Request     Action = "connection.request"
	Dial        Action = "connection.dial"

	ConnectionsRead   Action = "connections.read"
	ConnectionsManage Action = "connections.manage"
	GatewaysManage    Action = "gateways.manage"
	AgentsRead        Action = "agents.read"
	AgentsManage      Action = "agents.manage"
	GroupsRead        Action = "groups.read"
	GroupsManage      Action = "groups.manage"
	JoinTokensRead    Action = "join_tokens.read"
	JoinTokensManage  Action = "join_tokens.manage"
	TokensRead        Action = "tokens.read"
	TokensManage      Action = "tokens.manage"
	AllowlistRead     Action = "allowlist.read"
	AllowlistManage   Action = "allowlist.manage"
	AuditRead         Action = "audit.read"
	BudgetsRead       Action = "budgets.read"
	BudgetsManage     Action = "budgets.manage"
	UsersRead         Action = "users.read"
	UsersManage       Action = "users.manage"
	SignInRead        Action = "sign_in.read"
	SignInManage      Action = "sign_in.manage"
)

// Permission is a row of the permission table.
type Permission struct {
	Action Action
	Level  Level
	Guards string // the operation or the routes below /api/v1/workspaces/{workspace}
	roles  roleSet
}

// Actions is the permission table. A route or operation that stands in no row is refused.
var Actions = []Permission{
	{Query, OnConnection, "POST /connections/{connection}/query", all},
	{Schema, OnConnection, "GET /connections/{connection}/schema", all},
	{List, OnConnection, "GET /connections/{connection}/list", all},
	{Stat, OnConnection, "GET /connections/{connection}/stat, HEAD /connections/{connection}/files/{path}", all},
	{Read, OnConnection, "GET /connections/{connection}/files/{path}", all},
	{RequestGet, OnConnection, "GET HEAD OPTIONS /connections/{connection}/http/{path}", all},
	{Exec, OnConnection, "POST /connections/{connection}/exec", operators},
	{Transaction, OnConnection, "POST /connections/{connection}/transaction", operators},
	{Write, OnConnection, "PUT /connections/{connection}/files/{path}", operators},
	{Delete, OnConnection, "DELETE /connections/{connection}/files/{path}", operators},
	{Move, OnConnection, "POST /connections/{connection}/move", operators},
	{Mkdir, OnConnection, "POST /connections/{connection}/mkdir", operators},
	{Request, OnConnection, "any other method /connections/{connection}/http/{path}", operators},
	{Dial, OnConnection, "POST /connections/{connection}/dial", operators | gateways},

	{ConnectionsRead, OnConnection, "GET /connections (each item), GET /connections/{connection}, POST /tunnel (each stream in it is decided as the dial that it is)", all},
	{ConnectionsManage, OnWorkspace, "POST /connections, DELETE /connections/{connection}", operators},
	{GatewaysManage, OnWorkspace, "PUT /connections/{connection}/gateway, DELETE /connections/{connection}/gateway, POST /connections with a gateway", admins},
	{AgentsRead, OnWorkspace, "GET /agents, GET /agents/{agent}", operators},
	{AgentsManage, OnWorkspace, "POST /agents/{agent}/disable, POST /agents/{agent}/enable, DELETE /agents/{agent}", operators},
	{GroupsRead, OnWorkspace, "GET /groups", operators},
	{GroupsManage, OnWorkspace, "POST /groups, DELETE /groups/{group}", operators},
	{JoinTokensRead, OnWorkspace, "GET /join-tokens", operators},
	{JoinTokensManage, OnWorkspace, "POST /join-tokens, DELETE /join-tokens/{id}", operators},
	{AuditRead, OnWorkspace, "GET /audit/events, GET /audit/log, GET /audit/checkpoints, GET /audit/key", operators},
	{BudgetsRead, OnWorkspace, "GET /budget, GET /connections/{connection}/budget", operators},
	{BudgetsManage, OnWorkspace, "PUT /budget, PUT /connections/{connection}/budget", admins},
	{AllowlistRead, OnWorkspace, "GET /allowlist", operators},
	{AllowlistManage, OnWorkspace, "PUT /allowlist", admins},
	{TokensRead, OnWorkspace, "GET /tokens", admins},
	{TokensManage, OnWorkspace, "POST /tokens, DELETE /tokens/{id}", admins},
	{UsersRead, OnWorkspace, "GET /users, GET /sessions", admins},
	{UsersManage, OnWorkspace, "POST /users, POST /users/{id}/code, POST /users/{id}/disable, POST /users/{id}/enable, DELETE /users/{id}, DELETE /users/{id}/second-factor, DELETE /users/{id}/sessions, DELETE /sessions/{id}", admins},
	{SignInRead, OnWorkspace, "GET /sign-in-policy", operators},
	{SignInManage, OnWorkspace, "PUT /sign-in-policy", admins},
}

// table is Actions by name, filled once when the program starts.
var table = func() map[Action]Permission {
	m := make(map[Action]Permission, len(Actions))
	for _, p := range Actions {
		m[p.Action] = p
	}
	return m
}()

// Find gives the row of an action.
func Find(a Action) (Permission, bool) {
	p, ok := table[a]
	return p, ok
}

// ForOperation is the action that guards an operation; method is the HTTP method of a request operation and else ignored. An
// operation that it does not know gives "", which Decide denies.
func ForOperation(op protocol.Operation, method string) Action {
	switch op {
	case protocol.OpQuery:
		return Query
	case protocol.OpExec:
		return Exec
	case protocol.OpTransaction:
		return Transaction
	case protocol.OpSchema:
		return Schema
	case protocol.OpList:
		return List
	case protocol.OpStat:
		return Stat
	case protocol.OpRead:
		return Read
	case protocol.OpWrite:
		return Write
	case protocol.OpDelete:
		return Delete
	case protocol.OpMove:
		return Move
	case protocol.OpMkdir:
		return Mkdir
	case protocol.OpDial:
		return Dial
	case protocol.OpRequest:
		if method == "GET" || method == "HEAD" || method == "OPTIONS" {
			return RequestGet
		}
		return Request
	}
	return ""
}

// Role is a set of actions.
type Role string

// Roles. Admin does everything; Operator runs agents, groups, connections and join tokens, reads the audit log and uses
// connections; Analyst uses connections for reading.
const (
	Admin    Role = "admin"
	Operator Role = "operator"
	Analyst  Role = "analyst"
)

// Roles lists every role, the widest first.
var Roles = []Role{Admin, Operator, Analyst}

// ParseRole refuses what is not exactly the name of a role.
func ParseRole(s string) (Role, error) {
	if r := Role(s); r.bit() != 0 {
		return r, nil
	}
	return "", &protocol.Error{Code: protocol.CodeInvalid, Message: "no such role", Hint: "use admin, operator or analyst"}
}

// Allows reports whether the role holds an action. Unknown roles and actions never do.
func (r Role) Allows(a Action) bool {
	p, ok := table[a]
	return ok && p.roles&r.bit() != 0
}

type roleSet uint8

const (
	admins    roleSet = 1
	operators         = admins | 2
	all               = operators | 4
	gateways  roleSet = 8 // of no role that can be given: see NewGateway
)

func (r Role) bit() roleSet {
	switch r {
	case Admin:
		return 1
	case Operator:
		return 2
	case Analyst:
		return 4
	}
	return 0
}
