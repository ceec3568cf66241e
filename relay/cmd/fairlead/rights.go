package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

type rolesCommands struct {
	List   rolesList   `cmd:"" help:"List system and custom roles."`
	Show   rolesShow   `cmd:"" help:"Show a role's actions. The role owner holds all that there are."`
	Create rolesCreate `cmd:"" help:"Make a custom role."`
	Update rolesUpdate `cmd:"" help:"Replace a custom role's actions, or its name. Whoever holds it holds the new one."`
	Delete rolesDelete `cmd:"" help:"Delete a custom role that no grant gives."`
}

type rolesList struct{ cli.Output }

func (*rolesList) Examples() []string { return []string{"fairlead roles list"} }

func (k *rolesList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	roles, err := c.Roles(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, roles, []string{"name", "kind", "actions", "id"}, func(r client.Role) []string {
		kind := "custom"
		if r.System {
			kind = "system"
		}
		return []string{r.Name, kind, strconv.Itoa(len(r.Actions)), r.ID}
	})
}

type rolesShow struct {
	Name string `arg:"" help:"Name or id of the role."`
	cli.Output
}

func (*rolesShow) Examples() []string { return []string{"fairlead roles show analyst"} }

func (k *rolesShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	role, err := c.Role(ctx, k.Name)
	if err != nil {
		return about(k.Name, err)
	}
	return printRole(t, k.Output, role)
}

func printRole(t *cli.Term, o cli.Output, r client.Role) error {
	if o.JSON() {
		return t.JSON(r)
	}
	for _, a := range r.Actions {
		t.Printf("%s\n", cli.Clean(a))
	}
	return nil
}

type rolesCreate struct {
	Name   string   `arg:"" help:"Name of the role."`
	Action []string `required:"" placeholder:"ACTION" help:"Action that the role holds, as fairlead roles show prints them. May be given several times."`
	cli.Output
}

func (*rolesCreate) Examples() []string {
	return []string{"fairlead roles create reader --action connections.read --action connection.query --action connection.schema"}
}

func (k *rolesCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateRole(ctx, client.SetRole{Name: k.Name, Actions: k.Action})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Notef("role %s (%s) is made; it is given by: fairlead grants create %s --to PRINCIPAL\n", cli.Clean(made.Name), made.ID, cli.Clean(made.Name))
	return nil
}

type rolesUpdate struct {
	Name   string   `arg:"" help:"Name or id of the role."`
	Add    []string `placeholder:"ACTION" help:"Action that comes to it. May be given several times."`
	Remove []string `placeholder:"ACTION" help:"Action that leaves it. May be given several times."`
	Rename string   `placeholder:"NAME" help:"Its new name."`
	cli.Output
	ifMatch
}

func (*rolesUpdate) Examples() []string {
	return []string{"fairlead roles update reader --add connection.list --remove connection.schema"}
}

// Run reads the role and replaces it only if nobody else did meanwhile.
func (k *rolesUpdate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if len(k.Add)+len(k.Remove) == 0 && k.Rename == "" {
		return cli.Usage("want --add, --remove or --rename")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	was, err := c.Role(ctx, k.Name)
	if err != nil {
		return about(k.Name, err)
	}
	s := client.SetRole{Name: was.Name, Actions: slices.DeleteFunc(was.Actions, func(a string) bool { return slices.Contains(k.Remove, a) })}
	if k.Rename != "" {
		s.Name = k.Rename
	}
	for _, a := range k.Add {
		if !slices.Contains(s.Actions, a) {
			s.Actions = append(s.Actions, a)
		}
	}
	if err := stillHeld(s.Actions, k.Remove); err != nil {
		return err
	}
	if k.IfMatch == "" {
		k.IfMatch = was.ETag
	}
	made, err := c.SetRole(ctx, k.Name, k.IfMatch, s)
	if err != nil {
		return about(k.Name, err)
	}
	return printRole(t, k.Output, made)
}

type rolesDelete struct {
	Name string `arg:"" help:"Name or id of the role."`
	ifMatch
}

func (*rolesDelete) Examples() []string { return []string{"fairlead roles delete reader"} }

func (k *rolesDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).DeleteRole(ctx, k.Name); err != nil {
		return about(k.Name, err)
	}
	t.Notef("role %s is deleted\n", cli.Clean(k.Name))
	return nil
}

type grantsCommands struct {
	List   grantsList   `cmd:"" help:"List who holds which role, on what, until when and from where."`
	Create grantsCreate `cmd:"" help:"Give a role: no more of it, for no longer and from no more networks than you hold it."`
	Delete grantsDelete `cmd:"" help:"Take a grant away at once, open streams included."`
}

// onWhat names what a grant is given on.
func onWhat(g client.Grant) string {
	switch {
	case g.Connection != "":
		return "connection " + g.Connection
	case g.Project != "" && g.Environment != "":
		return "project " + placeName(g.Project, g.Folder) + " in " + g.Environment
	case g.Project != "":
		return "project " + placeName(g.Project, g.Folder)
	case g.Environment != "":
		return "environment " + g.Environment
	}
	return "workspace"
}

func until(g client.Grant) string {
	s := stampPtr(g.Until)
	if g.Over {
		s += " (over)"
	}
	return s
}

type grantsCreate struct {
	Role        string    `arg:"" help:"System or custom role."`
	To          string    `placeholder:"PRINCIPAL" help:"Name or id of whom it is for; the name of a token is its principal's."`
	ToTeam      string    `placeholder:"TEAM" help:"Name or id of the team that it is for."`
	Environment string    `placeholder:"ENV" help:"On an environment alone: development, test or production; with --project, on what of that stands there."`
	Project     string    `placeholder:"NAME" help:"On a project alone: its name or id."`
	Folder      string    `placeholder:"PATH" help:"On a folder of the project with those below it: its path or id."`
	Connection  string    `placeholder:"NAME" help:"On a connection alone: its name or id."`
	Until       time.Time `placeholder:"TIME" help:"Until a time: 2026-12-31T18:00:00Z."`
	Expires     lifetime  `placeholder:"8h" help:"For so long: 8h, 30d."`
	From        []string  `placeholder:"CIDR" help:"From a network alone: 192.0.2.0/24, 2001:db8::/32. May be given several times."`
	cli.Output
}

func (*grantsCreate) Examples() []string {
	return []string{
		"fairlead grants create analyst --to reports --connection sales",
		"fairlead grants create operator --to-team plant --project sales --folder reports --environment test",
		"# on call tonight, from the office",
		"fairlead grants create operator --to-team night --environment production --expires 12h --from 192.0.2.0/24",
	}
}

func (k *grantsCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	n := client.NewGrant{Role: k.Role, Principal: k.To, Team: k.ToTeam, Environment: k.Environment, Project: k.Project, Folder: k.Folder, Connection: k.Connection, ExpiresInSeconds: k.Expires.seconds(), From: k.From}
	switch {
	case (k.To == "") == (k.ToTeam == ""):
		return cli.Usage("want either --to PRINCIPAL or --to-team TEAM")
	case k.Environment != "" && k.Connection != "":
		return cli.Usage("want --environment or --connection, or neither for the whole workspace")
	case k.Project != "" && k.Connection != "":
		return cli.Usage("want --project or --connection, or neither for the whole workspace")
	case k.Folder != "" && k.Project == "":
		return cli.Usage("--folder is of a project: name it by --project")
	case !k.Until.IsZero() && k.Expires != 0:
		return cli.Usage("want --until or --expires, not both")
	case !k.Until.IsZero():
		n.Until = &k.Until
	}
	for _, p := range k.From {
		if _, err := allowlist.ParsePrefix(p); err != nil {
			return &protocol.Error{Code: protocol.CodeInvalid, Message: err.Error(), Hint: "nothing was given; write 192.0.2.0/24, 2001:db8::/32 or 198.51.100.7"}
		}
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateGrant(ctx, n)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(made)
	}
	end := "without end"
	if made.Until != nil {
		end = "until " + stamp(*made.Until)
	}
	t.Notef("grant %s: role %s on %s, %s\n", made.ID, cli.Clean(made.Role), cli.Clean(onWhat(made)), end)
	return nil
}

type grantsDelete struct {
	ID string `arg:"" help:"Id of the grant."`
	ifMatch
}

func (*grantsDelete) Examples() []string {
	return []string{"fairlead grants delete gra_7k2mxq4v5h6j7k2mxq4v5h6j7k"}
}

func (k *grantsDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).DeleteGrant(ctx, k.ID); err != nil {
		return about(k.ID, err)
	}
	t.Notef("grant %s is deleted\n", cli.Clean(k.ID))
	return nil
}

type teamsCommands struct {
	List   teamsList   `cmd:"" help:"List teams with their members."`
	Show   teamsShow   `cmd:"" help:"Show one team with its members."`
	Create teamsCreate `cmd:"" help:"Make a team without members."`
	Delete teamsDelete `cmd:"" help:"Delete a team with its grants."`
	Add    teamsAdd    `cmd:"" help:"Put a principal into a team: it holds what the team does."`
	Remove teamsRemove `cmd:"" help:"Take a principal out of a team at once, open streams included."`
}

type teamsList struct{ cli.Output }

func (*teamsList) Examples() []string { return []string{"fairlead teams list"} }

func (k *teamsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	teams, err := c.Teams(ctx)
	if err != nil {
		return err
	}
	return teamTable.list(t, k.Output, teams)
}

type teamsCreate struct {
	Name string `arg:"" help:"Name of the team."`
	cli.Output
}

func (*teamsCreate) Examples() []string { return []string{"fairlead teams create night"} }

func (k *teamsCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateTeam(ctx, client.NewTeam{Name: k.Name})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Notef("team %s (%s) is made\n", cli.Clean(made.Name), made.ID)
	return nil
}

type teamsDelete struct {
	Name string `arg:"" help:"Name or id of the team."`
	Yes  bool   `short:"y" help:"Do not ask."`
	ifMatch
}

func (*teamsDelete) Examples() []string { return []string{"fairlead teams delete night"} }

func (k *teamsDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Delete team "+cli.Clean(k.Name)+" with its grants?", k.Yes); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).DeleteTeam(ctx, k.Name); err != nil {
		return about(k.Name, err)
	}
	t.Notef("team %s is deleted\n", cli.Clean(k.Name))
	return nil
}

type teamsAdd struct {
	Team      string `arg:"" help:"Name or id of the team."`
	Principal string `arg:"" help:"Name or id of the principal; the name of a token is its principal's."`
	ifMatch
}

func (*teamsAdd) Examples() []string { return []string{"fairlead teams add night reports"} }

func (k *teamsAdd) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := k.on(c).AddMember(ctx, k.Team, k.Principal); err != nil {
		return err
	}
	t.Notef("%s is in team %s\n", cli.Clean(k.Principal), cli.Clean(k.Team))
	return nil
}

type teamsRemove struct {
	Team      string `arg:"" help:"Name or id of the team."`
	Principal string `arg:"" help:"Name or id of the principal."`
	ifMatch
}

func (*teamsRemove) Examples() []string { return []string{"fairlead teams remove night reports"} }

func (k *teamsRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).RemoveMember(ctx, k.Team, k.Principal); err != nil {
		return err
	}
	t.Notef("%s is out of team %s\n", cli.Clean(k.Principal), cli.Clean(k.Team))
	return nil
}

type workspaceCommands struct {
	Plan   workspacePlan   `cmd:"" help:"Show what lies between files and the workspace. Nothing is changed."`
	Apply  workspaceApply  `cmd:"" help:"Show the plan, and make the workspace what the files say."`
	Export workspaceExport `cmd:"" help:"Write the workspace as a file that plan and apply read."`
	Delete workspaceDelete `cmd:"" help:"Destroy the workspace with all that is in it, for good. For owners."`
}

type workspaceDelete struct {
	Name string `arg:"" help:"Name of the workspace once more, so that nobody does it unawares."`
	Yes  bool   `short:"y" help:"Do not ask."`
}

func (*workspaceDelete) Examples() []string {
	return []string{"fairlead workspace delete staging --workspace staging"}
}

func (k *workspaceDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Destroy workspace "+cli.Clean(k.Name)+" with its connections, tokens and keys, for good?", k.Yes); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.DeleteWorkspace(ctx, k.Name); err != nil {
		return err
	}
	t.Notef("workspace %s is destroyed\n", cli.Clean(k.Name))
	return nil
}
