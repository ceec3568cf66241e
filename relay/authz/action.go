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

// The parts of what manages an asset.
const (
	ConnectionsCreate Action = "connections.create"
	ConnectionsEdit   Action = "connections.edit"
	ConnectionsDelete Action = "connections.delete"
	GatewaysEdit      Action = "gateways.edit"
	GatewaysDelete    Action = "gateways.delete"
	AgentsEdit        Action = "agents.edit"
	AgentsDelete      Action = "agents.delete"
	GroupsCreate      Action = "groups.create"
	GroupsDelete      Action = "groups.delete"
	JoinTokensCreate  Action = "join_tokens.create"
	JoinTokensDelete  Action = "join_tokens.delete"
	TokensCreate      Action = "tokens.create"
	TokensDelete      Action = "tokens.delete"
	AllowlistEdit     Action = "allowlist.edit"
	BudgetsEdit       Action = "budgets.edit"
	RolesCreate       Action = "roles.create"
	RolesEdit         Action = "roles.edit"
	RolesDelete       Action = "roles.delete"
	GrantsCreate      Action = "grants.create"
	GrantsDelete      Action = "grants.delete"
	TeamsCreate       Action = "teams.create"
	TeamsEdit         Action = "teams.edit"
	TeamsDelete       Action = "teams.delete"
	UsersCreate       Action = "users.create"
	UsersEdit         Action = "users.edit"
	UsersDelete       Action = "users.delete"
	SignInEdit        Action = "sign_in.edit"
	ServicesCreate    Action = "service_accounts.create"
	ServicesEdit      Action = "service_accounts.edit"
	ServicesDelete    Action = "service_accounts.delete"
	DomainsCreate     Action = "domains.create"
	DomainsDelete     Action = "domains.delete"
	ProjectsCreate    Action = "projects.create"
	ProjectsEdit      Action = "projects.edit"
	ProjectsDelete    Action = "projects.delete"
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

// Verb is what is done to an asset. Who holds the action that manages an asset holds those that create, edit and delete it (Set.with);
// who holds these does not hold that one.
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
	{ConnectionsManage, OnScope, Connections, Manage, "what connections.create, connections.edit and connections.delete guard", operators},
	{ConnectionsCreate, OnScope, Connections, Create, "POST /connections (in its environment, project and folder; and on the workspace, on the environment of the agent group, or on one of its environment that leads to the same)", operators},
	{ConnectionsEdit, OnScope, Connections, Edit, "PUT /connections/{connection}/place (where it stands and where it goes; and connections.create as for one that leads to the same)", operators},
	{ConnectionsDelete, OnScope, Connections, Destroy, "DELETE /connections/{connection}", operators},
	{GatewaysManage, OnWorkspace, Gateways, Manage, "what gateways.edit and gateways.delete guard", admins},
	{GatewaysEdit, OnWorkspace, Gateways, Edit, "PUT /connections/{connection}/gateway, POST /connections with a gateway", admins},
	{GatewaysDelete, OnWorkspace, Gateways, Destroy, "DELETE /connections/{connection}/gateway", admins},
	{AgentsRead, OnEnvironment, Agents, View, "GET /agents (each item), GET /agents/{agent}, on the environment of its group", operators},
	{AgentsManage, OnEnvironment, Agents, Manage, "what agents.edit and agents.delete guard", operators},
	{AgentsEdit, OnEnvironment, Agents, Edit, "POST /agents/{agent}/disable, POST /agents/{agent}/enable (on the environment of its group)", operators},
	{AgentsDelete, OnEnvironment, Agents, Destroy, "DELETE /agents/{agent} (on the environment of its group)", operators},
	{GroupsRead, OnEnvironment, Groups, View, "GET /groups (each item)", operators},
	{GroupsManage, OnEnvironment, Groups, Manage, "what groups.create and groups.delete guard", operators},
	{GroupsCreate, OnEnvironment, Groups, Create, "POST /groups (on the environment that it is to be of; of none, on the workspace)", operators},
	{GroupsDelete, OnEnvironment, Groups, Destroy, "DELETE /groups/{group} (on the environment that it is of; of none, on the workspace)", operators},
	{JoinTokensRead, OnEnvironment, JoinTokens, View, "GET /join-tokens (each item)", operators},
	{JoinTokensManage, OnEnvironment, JoinTokens, Manage, "what join_tokens.create and join_tokens.delete guard", operators},
	{JoinTokensCreate, OnEnvironment, JoinTokens, Create, "POST /join-tokens (on the environment of the group)", operators},
	{JoinTokensDelete, OnEnvironment, JoinTokens, Destroy, "DELETE /join-tokens/{id} (on the environment of the group)", operators},
	{AuditRead, OnWorkspace, AuditLogs, View, "GET /audit/events, GET /audit/log, GET /audit/checkpoints, GET /audit/key, POST /explain/replay (grants.read on the workspace too)", operators},
	{BudgetsRead, OnWorkspace, Budgets, View, "GET /budget, GET /connections/{connection}/budget, GET /quota", operators},
	{BudgetsManage, OnWorkspace, Budgets, Manage, "what budgets.edit guards", admins},
	{BudgetsEdit, OnWorkspace, Budgets, Edit, "PUT /budget, PUT /connections/{connection}/budget", admins},
	{AllowlistRead, OnWorkspace, Allowlists, View, "GET /allowlist", operators},
	{AllowlistManage, OnWorkspace, Allowlists, Manage, "what allowlist.edit guards", admins},
	{AllowlistEdit, OnWorkspace, Allowlists, Edit, "PUT /allowlist", admins},
	{TokensRead, OnWorkspace, Tokens, View, "GET /tokens", admins},
	{TokensManage, OnWorkspace, Tokens, Manage, "what tokens.create and tokens.delete guard", admins},
	{TokensCreate, OnWorkspace, Tokens, Create, "POST /tokens (of who holds no more than the caller)", admins},
	{TokensDelete, OnWorkspace, Tokens, Destroy, "DELETE /tokens/{id} (of an owner: workspace.own too)", admins},

	{RolesRead, OnWorkspace, CustomRoles, View, "GET /roles, GET /roles/{role}", admins},
	{RolesManage, OnWorkspace, CustomRoles, Manage, "what roles.create, roles.edit and roles.delete guard", admins},
	{RolesCreate, OnWorkspace, CustomRoles, Create, "POST /roles", admins},
	{RolesEdit, OnWorkspace, CustomRoles, Edit, "PUT /roles/{role}", admins},
	{RolesDelete, OnWorkspace, CustomRoles, Destroy, "DELETE /roles/{role}", admins},
	{GrantsRead, OnScope, Grants, View, "GET /grants (each item), GET /explain", admins},
	{GrantsManage, OnScope, Grants, Manage, "what grants.create and grants.delete guard", admins},
	{GrantsCreate, OnScope, Grants, Create, "POST /grants (on the grant's own scope; of the role owner: workspace.own too)", admins},
	{GrantsDelete, OnScope, Grants, Destroy, "DELETE /grants/{id} (on the grant's own scope; of the role owner: workspace.own too)", admins},
	{TeamsRead, OnWorkspace, Teams, View, "GET /teams, GET /teams/{team}", admins},
	{TeamsManage, OnWorkspace, Teams, Manage, "what teams.create, teams.edit and teams.delete guard", admins},
	{TeamsCreate, OnWorkspace, Teams, Create, "POST /teams", admins},
	{TeamsEdit, OnWorkspace, Teams, Edit, "PUT /teams/{team}/members/{principal}, DELETE /teams/{team}/members/{principal}", admins},
	{TeamsDelete, OnWorkspace, Teams, Destroy, "DELETE /teams/{team}", admins},
	{UsersRead, OnWorkspace, Users, View, "GET /users, GET /sessions", admins},
	{UsersManage, OnWorkspace, Users, Manage, "what users.create, users.edit and users.delete guard", admins},
	{UsersCreate, OnWorkspace, Users, Create, "POST /users", admins},
	{UsersEdit, OnWorkspace, Users, Edit, "POST /users/{id}/code, POST /users/{id}/disable, POST /users/{id}/enable, PUT /users/{id}/email, DELETE /users/{id}/second-factor, DELETE /users/{id}/sessions, DELETE /sessions/{id} (each of who holds no more than the caller)", admins},
	{UsersDelete, OnWorkspace, Users, Destroy, "DELETE /users/{id} (of who holds no more than the caller)", admins},
	{SignInRead, OnWorkspace, SignIns, View, "GET /sign-in-policy", operators},
	{SignInManage, OnWorkspace, SignIns, Manage, "what sign_in.edit guards", admins},
	{SignInEdit, OnWorkspace, SignIns, Edit, "PUT /sign-in-policy", admins},
	{ServicesRead, OnWorkspace, Services, View, "GET /service-accounts, GET /service-accounts/{name}", admins},
	{ServicesManage, OnWorkspace, Services, Manage, "what service_accounts.create, service_accounts.edit and service_accounts.delete guard", admins},
	{ServicesCreate, OnWorkspace, Services, Create, "POST /service-accounts", admins},
	{ServicesEdit, OnWorkspace, Services, Edit, "POST /service-accounts/{name}/disable, POST /service-accounts/{name}/enable (each of one that holds no more than the caller)", admins},
	{ServicesDelete, OnWorkspace, Services, Destroy, "DELETE /service-accounts/{name} (of one that holds no more than the caller)", admins},
	{DomainsRead, OnWorkspace, Domains, View, "GET /domains, GET /domains/{name}", operators},
	{DomainsManage, OnWorkspace, Domains, Manage, "what domains.create and domains.delete guard", admins},
	{DomainsCreate, OnWorkspace, Domains, Create, "POST /domains", admins},
	{DomainsDelete, OnWorkspace, Domains, Destroy, "DELETE /domains/{name}", admins},
	{ProjectsRead, OnScope, Projects, View, "GET /projects, GET /projects/{project}, GET /projects/{project}/folders (each item; of a project, it or one of its folders)", all},
	{ProjectsManage, OnScope, Projects, Manage, "what projects.create, projects.edit and projects.delete guard", operators},
	{ProjectsCreate, OnScope, Projects, Create, "POST /projects (on the workspace), POST /projects/{project}/folders (where the folder stands)", operators},
	{ProjectsEdit, OnScope, Projects, Edit, "PUT /projects/{project} (on the project in all environments)", operators},
	{ProjectsDelete, OnScope, Projects, Destroy, "DELETE /projects/{project}, DELETE /projects/{project}/folders/{folder} (each on it in all environments)", operators},
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
