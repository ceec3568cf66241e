package plan

import "github.com/fairleadhq/fairlead/relay/authz"

// least is a role's actions without those that come with another of them: connections.manage holds connections.create, so a file may name
// both and the relay tell one. What this release does not know stays as it is.
func least(actions []string) []string {
	list := make([]authz.Action, len(actions))
	for i, a := range actions {
		list[i] = authz.Action(a)
	}
	set, err := authz.NewSet(list...)
	if err != nil {
		return actions
	}
	var out []string
	for _, a := range set.Least() {
		out = append(out, string(a))
	}
	return out
}
