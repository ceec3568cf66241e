package authz

// dangerous are the actions by which whoever holds a stolen session could stay in, let others in, or hide: a session must prove
// itself again before them. API tokens need not: nobody sits before them, and making one is such an action.
var dangerous = map[Action]bool{
	AllowlistManage: true, TokensManage: true, JoinTokensManage: true, AgentsManage: true, GatewaysManage: true, UsersManage: true, SignInManage: true,
	ServicesManage: true, DomainsManage: true, RolesManage: true, GrantsManage: true, TeamsManage: true, WorkspaceOwn: true,
	// A connection leads others to what a site allows, and where it stands says who they are; projects and folders take grants with them.
	ConnectionsManage: true, ProjectsManage: true,
}

// Dangerous reports whether a session must be fresh for an action. What stands in no row of the permission table is.
func (a Action) Dangerous() bool {
	_, ok := table[a]
	return !ok || dangerous[a]
}
