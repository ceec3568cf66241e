package main

import (
	"context"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type grantsList struct {
	To   string `placeholder:"NAME" help:"Those to this principal (its name or id) or, as 'team NAME', to this team; not what a principal holds through its teams."`
	Role string `placeholder:"ROLE" help:"Those of this role."`
	On   string `placeholder:"PLACE" help:"Those on exactly this: workspace, environment/NAME, project/NAME, project/NAME/FOLDER, or the name of a connection."`
	cli.Output
}

func (*grantsList) Examples() []string {
	return []string{"fairlead grants list", "fairlead grants list --to anna", "fairlead grants list --to 'team night' --on project/sales", "fairlead grants list --role admin --on workspace"}
}

func (k *grantsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	on, err := grantsOn(k.On)
	if err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	grants, err := c.Grants(ctx)
	if err != nil {
		return err
	}
	to := func(g client.Grant) string {
		if g.Team != "" {
			return "team " + g.Team
		}
		return g.PrincipalName
	}
	grants = slices.DeleteFunc(grants, func(g client.Grant) bool {
		return k.To != "" && k.To != to(g) && k.To != g.Principal || k.Role != "" && k.Role != g.Role || !on(g)
	})
	return list(t, k.Output, grants, []string{"id", "role", "to", "on", "until", "from"}, func(g client.Grant) []string {
		return []string{g.ID, g.Role, to(g), onWhat(g), until(g), strings.Join(g.From, ",")}
	})
}

// grantsOn tells which grants are on a place, and on nothing above or below it; on "" are all. One on a project in one environment
// alone is on the project, too.
func grantsOn(place string) (func(client.Grant) bool, error) {
	env, isEnv := strings.CutPrefix(place, "environment/")
	project, folder, connection := onAsset(place)
	switch {
	case place == "":
		return func(client.Grant) bool { return true }, nil
	case place == "workspace":
		return func(g client.Grant) bool { return g.Environment+g.Project+g.Connection == "" }, nil
	case isEnv && !slices.Contains([]string{"development", "test", "production"}, env):
		return nil, cli.Usage("--on %q: want environment/development, environment/test or environment/production", place)
	case isEnv:
		return func(g client.Grant) bool { return g.Environment == env && g.Project+g.Connection == "" }, nil
	case project != "":
		return func(g client.Grant) bool { return g.Project == project && g.Folder == folder }, nil
	}
	return func(g client.Grant) bool { return g.Connection == connection }, nil
}
