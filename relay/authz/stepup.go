package authz

// dangerous are the actions by which whoever holds a stolen session could stay in, let others in, or hide, with their parts: a session
// must prove itself again before them. API tokens need not: nobody sits before them, and making one is such an action.
var dangerous = func() (s Set) {
	for _, a := range []Action{
		AllowlistManage, TokensManage, JoinTokensManage, AgentsManage, GatewaysManage, UsersManage, SignInManage,
		ServicesManage, DomainsManage, RolesManage, GrantsManage, TeamsManage, WorkspaceOwn,
		// A connection leads others to what a site allows, and where it stands says who they are; projects and folders take grants with them.
		ConnectionsManage, ProjectsManage,
	} {
		s = s.with(table[a])
	}
	return s
}()

// Dangerous reports whether a session must be fresh for an action. What stands in no row of the permission table is.
func (a Action) Dangerous() bool {
	i, ok := table[a]
	return !ok || dangerous.has(i)
}
