package authz

import "github.com/fairleadhq/fairlead/protocol"

// Action is a permission. The text is what audit events and the API show: append only, never rename.
type Action string

// Level says what a grant must cover for an action.
type Level int

const (
	// OnWorkspace actions need a grant on the whole workspace.
	OnWorkspace Level = iota
	// OnConnection actions are about one connection: a grant on it or on what it lies in (its folder, its project, its environment,
	// the workspace) will do.
	OnConnection
	// OnScope actions are about whatever scope is named: a grant on it or on what it lies in will do.
	OnScope
	// OnEnvironment actions are about an environment, or about what is in none: a grant on it, of what is in none on the workspace.
	// A grant on a project, a folder or a connection gives none of them: agent groups stand in no such place.
	OnEnvironment
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
	RolesRead         Action = "roles.read"
	RolesManage       Action = "roles.manage"
	GrantsRead        Action = "grants.read"
	GrantsManage      Action = "grants.manage"
	TeamsRead         Action = "teams.read"
	TeamsManage       Action = "teams.manage"
	WorkspaceOwn      Action = "workspace.own"
	UsersRead         Action = "users.read"
	UsersManage       Action = "users.manage"
	SignInRead        Action = "sign_in.read"
	SignInManage      Action = "sign_in.manage"
	ServicesRead      Action = "service_accounts.read"
	ServicesManage    Action = "service_accounts.manage"
	DomainsRead       Action = "domains.read"
	DomainsManage     Action = "domains.manage"
	ProjectsRead      Action = "projects.read"
	ProjectsManage    Action = "projects.manage"
)

// inside reports whether a grant on a project, a folder or a connection gives actions of this level.
func (l Level) inside() bool { return l == OnConnection || l == OnScope }

// within reports whether a grant on a scope gives actions of this level at all.
func (l Level) within(s Scope) bool {
	switch l {
	case OnWorkspace:
		return s.Environment == "" && s.Project == "" && s.Connection == ""
	case OnEnvironment:
		return s.Project == "" && s.Connection == ""
	}
	return true
}

// Permission is a row of the permission table.
type Permission struct {
	Action Action
	Level  Level
	Asset  Asset
	Verb   Verb
	Guards string // the operation or the routes below /api/v1/workspaces/{workspace}
	roles  roleSet
}

// Asset is a kind of thing that is guarded.
type Asset string

const (
	Workspaces  Asset = "workspace"
	Connections Asset = "connection"
	Gateways    Asset = "gateway"
	Agents      Asset = "agent"
	Groups      Asset = "agent group"
	JoinTokens  Asset = "join token"
	Tokens      Asset = "API token"
	Allowlists  Asset = "allowlist"
	AuditLogs   Asset = "audit log"
	Budgets     Asset = "budget"
	CustomRoles Asset = "role"
	Grants      Asset = "grant"
	Teams       Asset = "team"
	Users       Asset = "user"
	SignIns     Asset = "sign-in policy"
	Services    Asset = "service account"
	Domains     Asset = "domain"
	Projects    Asset = "project"
)

// Verb is what is done to an asset. Manage stands for every change to it: create, edit and delete.
type Verb string

const (
	View    Verb = "view"
	Edit    Verb = "edit"
	Create  Verb = "create"
	Destroy Verb = "delete"
	Use     Verb = "use"
	Manage  Verb = "manage"
)

// Actions is the permission table. A route or operation that stands in no row is refused. A row's place is the bit that a
// Set holds it by while the program runs; nothing is stored by it.
var Actions = []Permission{
	{Query, OnConnection, Connections, Use, "POST /connections/{connection}/query", all},
	{Schema, OnConnection, Connections, Use, "GET /connections/{connection}/schema", all},
	{List, OnConnection, Connections, Use, "GET /connections/{connection}/list", all},
	{Stat, OnConnection, Connections, Use, "GET /connections/{connection}/stat, HEAD /connections/{connection}/files/{path}", all},
	{Read, OnConnection, Connections, Use, "GET /connections/{connection}/files/{path}", all},
	{RequestGet, OnConnection, Connections, Use, "GET HEAD OPTIONS /connections/{connection}/http/{path}", all},
	{Exec, OnConnection, Connections, Use, "POST /connections/{connection}/exec", operators},
	{Transaction, OnConnection, Connections, Use, "POST /connections/{connection}/transaction", operators},
	{Write, OnConnection, Connections, Use, "PUT /connections/{connection}/files/{path}", operators},
	{Delete, OnConnection, Connections, Use, "DELETE /connections/{connection}/files/{path}", operators},
	{Move, OnConnection, Connections, Use, "POST /connections/{connection}/move", operators},
	{Mkdir, OnConnection, Connections, Use, "POST /connections/{connection}/mkdir", operators},
	{Request, OnConnection, Connections, Use, "any other method /connections/{connection}/http/{path}", operators},
	{Dial, OnConnection, Connections, Use, "POST /connections/{connection}/dial", operators},

	{ConnectionsRead, OnConnection, Connections, View, "GET /connections (each item), GET /connections/{connection}, POST /tunnel (each stream in it is decided as the dial that it is)", all},
	{ConnectionsManage, OnScope, Connections, Manage, "POST /connections (in its environment, project and folder; and on the workspace, on the environment of the agent group, or on one of its environment that leads to the same), PUT /connections/{connection}/place (where it stands and where it goes), DELETE /connections/{connection}", operators},
	{GatewaysManage, OnWorkspace, Gateways, Manage, "PUT /connections/{connection}/gateway, DELETE /connections/{connection}/gateway, POST /connections with a gateway", admins},
	{AgentsRead, OnEnvironment, Agents, View, "GET /agents (each item), GET /agents/{agent}, on the environment of its group", operators},
	{AgentsManage, OnEnvironment, Agents, Manage, "POST /agents/{agent}/disable, POST /agents/{agent}/enable, DELETE /agents/{agent} (each on the environment of its group)", operators},
	{GroupsRead, OnEnvironment, Groups, View, "GET /groups (each item)", operators},
	{GroupsManage, OnEnvironment, Groups, Manage, "POST /groups, DELETE /groups/{group} (each on the environment that the group is of; of none, on the workspace)", operators},
	{JoinTokensRead, OnEnvironment, JoinTokens, View, "GET /join-tokens (each item)", operators},
	{JoinTokensManage, OnEnvironment, JoinTokens, Manage, "POST /join-tokens, DELETE /join-tokens/{id} (each on the environment of the group)", operators},
	{AuditRead, OnWorkspace, AuditLogs, View, "GET /audit/events, GET /audit/log, GET /audit/checkpoints, GET /audit/key, POST /explain/replay (grants.read on the workspace too)", operators},
	{BudgetsRead, OnWorkspace, Budgets, View, "GET /budget, GET /connections/{connection}/budget, GET /quota", operators},
	{BudgetsManage, OnWorkspace, Budgets, Manage, "PUT /budget, PUT /connections/{connection}/budget", admins},
	{AllowlistRead, OnWorkspace, Allowlists, View, "GET /allowlist", operators},
	{AllowlistManage, OnWorkspace, Allowlists, Manage, "PUT /allowlist", admins},
	{TokensRead, OnWorkspace, Tokens, View, "GET /tokens", admins},
	{TokensManage, OnWorkspace, Tokens, Manage, "POST /tokens, DELETE /tokens/{id} (of an owner: workspace.own too)", admins},

	{RolesRead, OnWorkspace, CustomRoles, View, "GET /roles, GET /roles/{role}", admins},
	{RolesManage, OnWorkspace, CustomRoles, Manage, "POST /roles, PUT /roles/{role}, DELETE /roles/{role}", admins},
	{GrantsRead, OnScope, Grants, View, "GET /grants (each item), GET /explain", admins},
	{GrantsManage, OnScope, Grants, Manage, "POST /grants, DELETE /grants/{id} (each on the grant's own scope; of the role owner: workspace.own too)", admins},
	{TeamsRead, OnWorkspace, Teams, View, "GET /teams, GET /teams/{team}", admins},
	{TeamsManage, OnWorkspace, Teams, Manage, "POST /teams, DELETE /teams/{team}, PUT /teams/{team}/members/{principal}, DELETE /teams/{team}/members/{principal}", admins},
	{UsersRead, OnWorkspace, Users, View, "GET /users, GET /sessions", admins},
	{UsersManage, OnWorkspace, Users, Manage, "POST /users, POST /users/{id}/code, POST /users/{id}/disable, POST /users/{id}/enable, PUT /users/{id}/email, DELETE /users/{id}, DELETE /users/{id}/second-factor, DELETE /users/{id}/sessions, DELETE /sessions/{id} (each of who holds no more than the caller)", admins},
	{SignInRead, OnWorkspace, SignIns, View, "GET /sign-in-policy", operators},
	{SignInManage, OnWorkspace, SignIns, Manage, "PUT /sign-in-policy", admins},
	{ServicesRead, OnWorkspace, Services, View, "GET /service-accounts, GET /service-accounts/{name}", admins},
	{ServicesManage, OnWorkspace, Services, Manage, "POST /service-accounts, POST /service-accounts/{name}/disable, POST /service-accounts/{name}/enable, DELETE /service-accounts/{name} (each of one that holds no more than the caller)", admins},
	{DomainsRead, OnWorkspace, Domains, View, "GET /domains, GET /domains/{name}", operators},
	{DomainsManage, OnWorkspace, Domains, Manage, "POST /domains, DELETE /domains/{name}", admins},
	{ProjectsRead, OnScope, Projects, View, "GET /projects, GET /projects/{project}, GET /projects/{project}/folders (each item; of a project, it or one of its folders)", all},
	{ProjectsManage, OnScope, Projects, Manage, "POST /projects (on the workspace), PUT /projects/{project}, DELETE /projects/{project} (each on the project in all environments), POST /projects/{project}/folders, DELETE /projects/{project}/folders/{folder} (where the folder stands)", operators},
	{WorkspaceOwn, OnWorkspace, Workspaces, Manage, "DELETE /workspaces/{workspace}; and, beside the action of the route, whatever gives or takes the role owner", owners},
}

// table finds an action's place in Actions, filled once when the program starts.
var table = func() map[Action]int {
	m := make(map[Action]int, len(Actions))
	for i, p := range Actions {
		m[p.Action] = i
	}
	return m
}()

// Find gives the row of an action.
func Find(a Action) (Permission, bool) {
	i, ok := table[a]
	if !ok {
		return Permission{}, false
	}
	return Actions[i], true
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
