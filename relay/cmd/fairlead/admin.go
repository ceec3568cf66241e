package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// list prints items as a table or as a JSON array.
func list[T any](t *cli.Term, o cli.Output, items []T, header []string, row func(T) []string) error {
	if o.JSON() {
		if items == nil {
			items = []T{}
		}
		return t.JSON(items)
	}
	rows := make([][]string, len(items))
	for i, item := range items {
		rows[i] = row(item)
	}
	return t.Table(header, rows)
}

// confirm asks on a terminal; a script has decided already.
func confirm(t *cli.Term, question string, yes bool) error {
	if yes || !cli.IsTerminal(t.In) {
		return nil
	}
	t.Notef("%s [y/N] ", question)
	answer, err := bufio.NewReader(t.In).ReadString('\n')
	if err != nil || !strings.EqualFold(strings.TrimSpace(answer), "y") && !strings.EqualFold(strings.TrimSpace(answer), "yes") {
		return &protocol.Error{Code: protocol.CodeCanceled, Message: "nothing was done"}
	}
	return nil
}

type agentsCommands struct {
	List    agentsList    `cmd:"" help:"List agents: state, version, since when, from where, which configuration."`
	Show    agentsShow    `cmd:"" help:"Show one agent with its profiles."`
	Disable agentsDisable `cmd:"" help:"Cut an agent off at once, until it is enabled."`
	Enable  agentsEnable  `cmd:"" help:"Let a disabled agent connect again."`
	Remove  agentsRemove  `cmd:"" help:"Revoke an agent for good; it must enrol anew."`
}

type agentsList struct{ cli.Output }

func (*agentsList) Examples() []string {
	return []string{"fairlead agents list", "fairlead agents list --output json"}
}

func (k *agentsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	agents, err := c.Agents(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, agents, []string{"id", "name", "group", "state", "version", "since", "from", "transport", "config", "note"}, agentRow)
}

func agentRow(a client.Agent) []string {
	since := stampPtr(a.ConnectedSince)
	if a.ConnectedSince == nil {
		since = stampPtr(a.LastSeen)
	}
	digest := strings.TrimPrefix(a.ConfigDigest, "sha256:")
	note := ""
	if a.ReloadError != "" {
		note = "newer configuration refused: " + a.ReloadError
	}
	return []string{a.ID, a.Name, a.Group, a.State, a.Version, since, a.SourceAddress, strings.Join(a.Transports, ","), digest[:min(12, len(digest))], note}
}

// agentArg names an agent by id or by name.
type agentArg struct {
	Agent string `arg:"" placeholder:"AGENT" help:"Id or name of the agent."`
}

func (k agentArg) find(ctx context.Context, c *client.Client) (client.Agent, error) {
	if strings.HasPrefix(k.Agent, "agt_") {
		return c.Agent(ctx, k.Agent)
	}
	agents, err := c.Agents(ctx)
	if err != nil {
		return client.Agent{}, err
	}
	var found []client.Agent
	var ids []string
	for _, a := range agents {
		if a.Name == k.Agent {
			found, ids = append(found, a), append(ids, a.ID)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return client.Agent{}, &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf("there is no agent %q", k.Agent), Hint: "fairlead agents list"}
	}
	return client.Agent{}, &protocol.Error{
		Code: protocol.CodeInvalid, Message: fmt.Sprintf("%d agents are named %q", len(found), k.Agent), Hint: "name it by its id: " + strings.Join(ids, ", "),
	}
}

type agentsShow struct {
	agentArg
	cli.Output
}

func (*agentsShow) Examples() []string { return []string{"fairlead agents show plant-7"} }

func (k *agentsShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := k.find(ctx, c)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(a)
	}
	for _, line := range [][2]string{
		{"id", a.ID}, {"name", a.Name}, {"group", a.Group}, {"state", a.State}, {"version", a.Version}, {"host", a.Hostname},
		{"system", strings.Trim(a.OS+"/"+a.Arch, "/")}, {"from", a.SourceAddress}, {"connected since", stampPtr(a.ConnectedSince)},
		{"last seen", stampPtr(a.LastSeen)}, {"tunnels", strconv.Itoa(a.Tunnels)}, {"lanes", strconv.Itoa(a.Lanes)}, {"transport", strings.Join(a.Transports, ", ")}, {"configuration", a.ConfigDigest},
		{"refused configuration", a.ReloadError}, {"certificate until", stampPtr(a.CertificateNotAfter)}, {"enrolled", stamp(a.CreatedAt)},
	} {
		if line[1] != "" {
			t.Printf("%-22s %s\n", line[0]+":", cli.Clean(line[1]))
		}
	}
	if len(a.Profiles) == 0 {
		return nil
	}
	t.Printf("\n")
	rows := make([][]string, len(a.Profiles))
	for i, p := range a.Profiles {
		var ops []string
		for _, op := range p.Operations {
			ops = append(ops, string(op))
		}
		rows[i] = []string{p.Name, string(p.Kind), p.Adapter, strings.Join(ops, " ")}
	}
	return t.Table([]string{"profile", "kind", "adapter", "operations"}, rows)
}

type agentsDisable struct {
	agentArg
	ifMatch
}

func (*agentsDisable) Examples() []string { return []string{"fairlead agents disable plant-7"} }

func (k *agentsDisable) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "disabled", (*client.Client).DisableAgent)
}

func (k agentArg) change(ctx context.Context, t *cli.Term, r *relayFlags, only ifMatch, done string, do func(*client.Client, context.Context, string) error) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := k.find(ctx, c)
	if err != nil {
		return err
	}
	if err := do(only.on(c), ctx, a.ID); err != nil {
		return err
	}
	t.Notef("agent %s (%s) is %s\n", cli.Clean(a.Name), a.ID, done)
	return nil
}

type agentsEnable struct {
	agentArg
	ifMatch
}

func (*agentsEnable) Examples() []string { return []string{"fairlead agents enable plant-7"} }

func (k *agentsEnable) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "enabled", (*client.Client).EnableAgent)
}

type agentsRemove struct {
	agentArg
	Yes bool `short:"y" help:"Do not ask."`
	ifMatch
}

func (*agentsRemove) Examples() []string { return []string{"fairlead agents remove plant-7"} }

func (k *agentsRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Remove agent "+cli.Clean(k.Agent)+" for good?", k.Yes); err != nil {
		return err
	}
	return k.change(ctx, t, r, k.ifMatch, "removed", (*client.Client).RemoveAgent)
}

type groupsCommands struct {
	List   groupsList   `cmd:"" help:"List agent groups."`
	Create groupsCreate `cmd:"" help:"Make an agent group."`
	Delete groupsDelete `cmd:"" help:"Delete an empty agent group."`
}

type groupsList struct{ cli.Output }

func (*groupsList) Examples() []string { return []string{"fairlead groups list"} }

func (k *groupsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	groups, err := c.Groups(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, groups, []string{"id", "name", "environment", "agents", "created"}, func(g client.Group) []string {
		return []string{g.ID, g.Name, cmp.Or(g.Environment, "any"), strconv.Itoa(g.Agents), stamp(g.CreatedAt)}
	})
}

type groupsCreate struct {
	Name        string `arg:"" help:"Name of the group."`
	Environment string `placeholder:"ENV" help:"Environment of all of its connections: development, test or production. Without it, each says its own."`
	cli.Output
}

func (*groupsCreate) Examples() []string {
	return []string{"fairlead groups create plant-north", "fairlead groups create lab --environment development"}
}

func (k *groupsCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	g, err := c.CreateGroup(ctx, client.NewGroup{Name: k.Name, Environment: k.Environment})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(g)
	}
	t.Notef("group %s (%s) is made\n", cli.Clean(g.Name), g.ID)
	return nil
}

type groupsDelete struct {
	Name string `arg:"" help:"Name of the group."`
	ifMatch
}

func (*groupsDelete) Examples() []string { return []string{"fairlead groups delete plant-north"} }

func (k *groupsDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).DeleteGroup(ctx, k.Name); err != nil {
		return about(k.Name, err)
	}
	t.Notef("group %s is deleted\n", cli.Clean(k.Name))
	return nil
}

type connectionsCommands struct {
	List    connectionsList    `cmd:"" help:"List the connections that you may see."`
	Show    connectionsShow    `cmd:"" help:"Show one connection."`
	Create  connectionsCreate  `cmd:"" help:"Make a connection to a profile, or to a target that the site's allow list admits."`
	Move    connectionsMove    `cmd:"" help:"Move a connection to a project or folder, or out of any. What its old place allowed is cut."`
	Delete  connectionsDelete  `cmd:"" help:"Delete a connection; the site's profile stays."`
	Gateway connectionsGateway `cmd:"" help:"Open a TCP port at the relay that leads to the target, or close it."`
}

type connectionsList struct{ cli.Output }

func (*connectionsList) Examples() []string { return []string{"fairlead connections list"} }

func (k *connectionsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Connections(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, all, connectionHeader, connectionRow)
}

var connectionHeader = []string{"name", "group", "leads to", "kind", "adapter", "available", "environment", "project", "gateway", "id"}

func connectionRow(k client.Connection) []string {
	to := "profile " + k.Profile
	if k.Target != nil {
		to = net.JoinHostPort(k.Target.Host, strconv.Itoa(int(k.Target.Port)))
	}
	available := "no"
	if k.Available {
		available = "yes"
	}
	return []string{k.Name, k.Group, to, string(k.Kind), k.Adapter, available, k.Environment, placeName(k.Project, k.Folder), gatewayCell(k.Gateway), k.ID}
}

type connectionsShow struct {
	Name string `arg:"" help:"Name or id of the connection."`
	cli.Output
}

func (*connectionsShow) Examples() []string { return []string{"fairlead connections show sales"} }

func (k *connectionsShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	found, err := c.Connection(ctx, k.Name)
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(found)
	}
	if err := t.Table(connectionHeader, [][]string{connectionRow(found)}); err != nil {
		return err
	}
	printGateway(t, found.Gateway)
	return nil
}

type connectionsCreate struct {
	Name         string       `arg:"" help:"Name of the connection."`
	Group        string       `required:"" placeholder:"GROUP" help:"Agent group that serves it."`
	Profile      string       `placeholder:"PROFILE" help:"Profile in the agents' own file."`
	Target       string       `placeholder:"HOST:PORT" help:"Host and port instead of a profile; the site's allow list must admit it."`
	Place        placeFlags   `embed:""`
	Environment  string       `placeholder:"ENV" help:"Environment that it stands in for good: development, test or production. Default: that of the group, else production."`
	Gateway      string       `placeholder:"ADDRESS:PORT" help:"Open this TCP port of the relay's machine too, for tools that cannot run this command."`
	GatewayFlags gatewayFlags `embed:"" prefix:"gateway-"`
	cli.Output
}

func (*connectionsCreate) Examples() []string {
	return []string{
		"fairlead connections create sales --group default --profile sales",
		"fairlead connections create erp --group default --target erp.corp:3200",
		"fairlead connections create orders --group default --profile orders --project sales --folder reports",
		"fairlead connections create bi --group default --profile sales --gateway 10.0.0.5:15432 --gateway-allow 192.0.2.0/24",
	}
}

func (k *connectionsCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if (k.Profile == "") == (k.Target == "") {
		return cli.Usage("want either --profile PROFILE or --target HOST:PORT")
	}
	if err := k.Place.check(); err != nil {
		return err
	}
	n := client.NewConnection{Name: k.Name, Group: k.Group, Profile: k.Profile, Environment: k.Environment, Project: k.Place.Project, Folder: k.Place.Folder}
	var err error
	if n.Gateway, err = k.GatewayFlags.set(k.Gateway, "gateway-"); err != nil {
		return err
	}
	if k.Target != "" {
		host, port, err := net.SplitHostPort(k.Target)
		number, perr := strconv.ParseUint(port, 10, 16)
		if err != nil || perr != nil || host == "" || number == 0 {
			return cli.Usage("--target %q: want HOST:PORT", k.Target)
		}
		n.Target = &client.Target{Host: host, Port: uint16(number)}
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateConnection(ctx, n)
	if client.CodeOf(err) == protocol.CodeNotFound && k.Place.Project == "" { // else it may be the project
		return about(k.Group, err)
	}
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Notef("connection %s (%s) is made\n", cli.Clean(made.Name), made.ID)
	if k.Profile != "" && !made.Available {
		t.Notef("no connected agent of group %s offers profile %s now; until one does, calls are refused as unavailable\n", cli.Clean(k.Group), cli.Clean(k.Profile))
	}
	noteGateway(t, made.Gateway)
	return nil
}

type connectionsDelete struct {
	Name string `arg:"" help:"Name or id of the connection."`
	Yes  bool   `short:"y" help:"Do not ask."`
	ifMatch
}

func (*connectionsDelete) Examples() []string { return []string{"fairlead connections delete sales"} }

func (k *connectionsDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Delete connection "+cli.Clean(k.Name)+"?", k.Yes); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).DeleteConnection(ctx, k.Name); err != nil {
		return about(k.Name, err)
	}
	t.Notef("connection %s is deleted\n", cli.Clean(k.Name))
	return nil
}
