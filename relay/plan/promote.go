package plan

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Route is which project is promoted, and from which environment to which.
type Route struct{ Project, From, To string }

// Mapping is what a file says that each connection becomes. docs/workspace-files.md tells of each key.
type Mapping struct {
	doc         *config.Document
	connections map[string]wanted[becomes]
	faults      config.Faults
}

type mapFile struct {
	Version     int                `yaml:"version"`
	Project     string             `yaml:"project"`
	From        string             `yaml:"from" enum:"development,test,production"`
	To          string             `yaml:"to" enum:"development,test,production"`
	Connections map[string]becomes `yaml:"connections"`
}

// becomes is a connection in the other environment. What is left out is as in the source, but for name and group.
type becomes struct {
	Name    string  `yaml:"name"`
	Group   string  `yaml:"group"`
	Profile string  `yaml:"profile"`
	Target  *target `yaml:"target"`
	Folder  string  `yaml:"folder"`
	Skip    bool    `yaml:"skip"`
}

// LoadMapping reads a mapping for a route. Its error is config.Faults, or that of a file that cannot be read.
func LoadMapping(name string, r Route) (*Mapping, error) {
	data, err := read(name)
	if err != nil {
		return nil, err
	}
	doc, err := config.Parse(name, data)
	if err != nil {
		return nil, err
	}
	var f mapFile
	if err := doc.Decode(&f); err != nil {
		return nil, err
	}
	m := &Mapping{doc: doc, connections: map[string]wanted[becomes]{}}
	top := where{doc, ""}
	if f.Version != 1 {
		m.fault(top.at("version"), "want the version of this form of file", "write version: 1")
	}
	for _, k := range [][3]string{{"project", f.Project, r.Project}, {"from", f.From, r.From}, {"to", f.To, r.To}} {
		if k[1] != "" && k[1] != k[2] {
			m.fault(top.at(k[0]), "the mapping is for "+k[1]+", and "+k[2]+" was asked for", "take the mapping that was made for it")
		}
	}
	taken := map[string]string{}
	for _, from := range names(f.Connections) {
		b := wanted[becomes]{f.Connections[from], top.at("connections").at(from)}
		m.check(from, b, taken)
		m.connections[from] = b
	}
	return m, m.faults.Err()
}

func (m *Mapping) fault(at where, msg, hint string) { m.faults = append(m.faults, at.fault(msg, hint)) }

// check finds what is wrong whatever the relay has.
func (m *Mapping) check(from string, b wanted[becomes], taken map[string]string) {
	if b.is.Skip {
		if b.is != (becomes{Skip: true}) {
			m.fault(b.where, "it is skipped, and becomes something", "leave skip out, or everything else")
		}
		return
	}
	if b.is.Name == "" {
		m.fault(b.at("name"), "the connection has no new name", "write name: NAME, or skip: true")
	} else if other, ok := taken[b.is.Name]; ok {
		m.fault(b.at("name"), "connection "+other+" becomes this, too", "give each another name")
	}
	taken[b.is.Name] = from
	if b.is.Group == "" {
		m.fault(b.at("group"), "no agent group is named", "write group: NAME")
	}
	if b.is.Profile != "" && b.is.Target != nil {
		m.fault(b.at("profile"), "want profile or target, not both", "leave both out for what the source has")
	}
	if t := b.is.Target; t != nil && t.Host != "" {
		host, _, err := allowlist.CanonicalHost(t.Host)
		if err != nil {
			m.fault(b.at("target").at("host"), "want a host name or an address", "target: {host: erp-test.corp}")
		}
		t.Host = host
	}
}

// Promotion is what lies between a project in one environment and its copy in another.
type Promotion struct {
	*Plan
	Project   string   `json:"project"`
	From      string   `json:"from"`
	To        string   `json:"to"`
	Same      []string `json:"same"`    // are there already, as they shall be
	Skipped   []string `json:"skipped"` // by the mapping
	NotCopied []string `json:"not_copied"`
}

// promoting makes a promotion.
type promoting struct {
	*Promotion
	m           *Mapping
	connections map[string]client.Connection
	groups      map[string]client.Group // nil: not for the caller to know
	some        bool                    // there are more of them than the caller sees; the relay tells at the step itself
	folders     []client.Folder
	project     client.Project
	faults      config.Faults
}

// Promote holds a project's connections in one environment, as far as the caller sees them, against those in another. Nothing is
// removed there. Each step is a request that the relay judges. Faults that only the relay's state shows are config.Faults, too.
func Promote(ctx context.Context, c *client.Client, r Route, m *Mapping) (*Promotion, error) {
	p := &promoting{m: m, Promotion: &Promotion{Plan: &Plan{Steps: []Step{}, Left: []string{}}, Project: r.Project, From: r.From, To: r.To, Same: []string{}, Skipped: []string{}, NotCopied: []string{}}}
	sources, err := p.look(ctx, c)
	if err != nil {
		return nil, err
	}
	mapped := map[string]bool{}
	for _, is := range sources {
		mapped[is.Name] = true
		b, ok := m.connections[is.Name]
		switch {
		case !ok:
			p.fault(where{m.doc, "connections"}, "connection "+is.Name+" stands in the project and the mapping does not name it", "say what it becomes, or skip: true")
		case b.is.Skip:
			p.Skipped = append(p.Skipped, is.Name)
		default:
			p.promote(is, b)
		}
	}
	for _, name := range names(m.connections) {
		if !mapped[name] {
			p.fault(m.connections[name].where, "no connection of this name stands in the project in environment "+r.From, "take the entry out, or write the name as it is there")
		}
	}
	if len(p.faults) > 0 {
		return nil, p.faults.Err()
	}
	return p.Promotion, nil
}

func (p *promoting) fault(at where, msg, hint string) {
	p.faults = append(p.faults, at.fault(msg, hint))
}

// look reads what there is, and gives what is to be promoted.
func (p *promoting) look(ctx context.Context, c *client.Client) (sources []client.Connection, err error) {
	me, err := c.Whoami(ctx)
	if err != nil {
		return nil, err
	}
	p.Workspace = me.Workspace
	if p.project, err = c.Project(ctx, p.Project); err != nil {
		return nil, err
	}
	p.Project = p.project.Name
	if p.folders, err = c.Folders(ctx, p.project.ID); err != nil {
		return nil, err
	}
	groups, err := c.Groups(ctx)
	switch {
	case err == nil:
		p.groups = byName(groups, func(g client.Group) string { return g.Name })
	case client.CodeOf(err) != protocol.CodeDenied:
		return nil, err
	default:
		p.some = true
	}
	all, err := c.Connections(ctx)
	if err != nil {
		return nil, err
	}
	p.connections = byName(all, func(k client.Connection) string { return k.Name })
	p.some = p.some || more(p.groups, all)
	for _, k := range all {
		if k.Project == p.Project && k.Environment == p.From {
			sources = append(sources, k)
		}
	}
	return sources, nil
}

// promote says what is to be done for one connection.
func (p *promoting) promote(is client.Connection, b wanted[becomes]) {
	want := client.NewConnection{Name: b.is.Name, Group: b.is.Group, Environment: p.To, Project: p.Project, Folder: is.Folder}
	if p.m.doc.Has(b.at("folder").path) { // "" is the project itself
		want.Folder = b.is.Folder
	}
	switch {
	case b.is.Target != nil:
		t := client.Target{Host: b.is.Target.Host, Port: b.is.Target.Port}
		if is.Target != nil {
			t.Host, t.Port = cmp.Or(t.Host, is.Target.Host), cmp.Or(t.Port, is.Target.Port)
		}
		if want.Target = &t; t.Host == "" || t.Port == 0 {
			p.fault(b.at("target"), "want host and port, for the source leads to a profile", "target: {host: erp-test.corp, port: 3200}")
		}
	case b.is.Profile != "":
		want.Profile = b.is.Profile
	default:
		want.Profile, want.Target = is.Profile, is.Target
	}
	if g, ok := p.groups[want.Group]; !ok && !p.some {
		p.fault(b.at("group"), "there is no such agent group", "make it first: fairlead groups create "+want.Group)
	} else if ok && g.Environment != "" && g.Environment != p.To {
		p.fault(b.at("group"), "the agent group is of environment "+g.Environment, "name a group of environment "+p.To)
	}
	if want.Folder != "" && !slices.ContainsFunc(p.folders, func(f client.Folder) bool { return f.Path == want.Folder }) {
		p.fault(b.at("folder"), "there is no such folder in the project", "make it first: fairlead folders create "+p.Project+" "+want.Folder)
	}
	there, ok := p.connections[want.Name]
	if ok {
		p.hold(there, want, is, b)
	} else {
		detail := []string{"from " + is.Name, "to " + leads(want.Profile, want.Target) + " of group " + want.Group, "project " + at(want.Project, want.Folder)}
		p.Steps = append(p.Steps, Step{Create, "connection", want.Name, detail, func(ctx context.Context, r *run) error {
			_, err := r.c.CreateConnection(ctx, want)
			return err
		}})
	}
	if is.Gateway != nil && there.Gateway == nil {
		p.NotCopied = append(p.NotCopied, "gateway of "+is.Name+" at "+is.Gateway.Address)
	}
}

// hold compares a connection that is there with what it shall be. Where it leads to it keeps, for grants were given on it.
func (p *promoting) hold(there client.Connection, want client.NewConnection, is client.Connection, b wanted[becomes]) {
	const keeps = "a connection keeps it for good, for grants were given on it: choose another name, or delete it first"
	before := len(p.faults)
	if there.Environment != p.To {
		p.fault(b.at("name"), "a connection of this name stands in environment "+there.Environment, "choose another name")
	}
	if there.Project != "" && there.Project != p.Project {
		p.fault(b.at("name"), "a connection of this name stands in project "+there.Project, "choose another name, or move it here first")
	}
	if there.Group != want.Group {
		p.fault(b.at("group"), "the connection that is there is of group "+there.Group, keeps)
	}
	if was, now := leads(there.Profile, there.Target), leads(want.Profile, want.Target); was != now {
		field := "profile"
		if want.Target != nil {
			field = "target"
		}
		p.fault(b.at(field), "the connection that is there leads to "+was+", and shall lead to "+now, keeps)
	}
	if len(p.faults) > before {
		return
	}
	if there.Project == want.Project && there.Folder == want.Folder {
		p.Same = append(p.Same, want.Name)
		p.Unchanged++
		return
	}
	detail := append([]string{"from " + is.Name}, difference(placeLines(there.Project, there.Folder), placeLines(want.Project, want.Folder))...)
	p.Steps = append(p.Steps, Step{Change, "connection", want.Name, detail, func(ctx context.Context, r *run) error {
		_, err := r.c.If(there.ETag).MoveConnection(ctx, there.ID, client.SetPlace{Project: want.Project, Folder: want.Folder})
		return err
	}})
}

func leads(profile string, t *client.Target) string {
	if t != nil {
		return fmt.Sprintf("%s:%d", t.Host, t.Port)
	}
	return "profile " + profile
}

// ProposeMapping writes a mapping for a route, to be edited: what it says is a guess, but for what the source has. A group that
// cannot be guessed is left open, which LoadMapping refuses.
func ProposeMapping(ctx context.Context, c *client.Client, r Route) ([]byte, error) {
	p := &promoting{Promotion: &Promotion{Plan: &Plan{}, Project: r.Project, From: r.From, To: r.To}}
	sources, err := p.look(ctx, c)
	if err != nil {
		return nil, err
	}
	var fit []string
	for _, name := range names(p.groups) {
		if p.groups[name].Environment == r.To {
			fit = append(fit, name)
		}
	}
	if len(fit) == 0 {
		for _, name := range names(p.groups) {
			if p.groups[name].Environment == "" {
				fit = append(fit, name)
			}
		}
	}
	o := &writer{}
	o.line(0, "# What each connection of project %s becomes in environment %s. Look at every line: names and groups are guesses.", text(p.Project), r.To)
	o.line(0, "version: 1")
	o.line(0, "project: %s", text(p.Project))
	o.line(0, "from: %s", r.From)
	o.line(0, "to: %s", r.To)
	if len(sources) == 0 {
		o.line(0, "connections: {}")
	} else {
		o.line(0, "connections:")
	}
	for _, is := range sources {
		o.line(1, "%s:", text(is.Name))
		o.line(2, "name: %s", text(proposed(is.Name, r)))
		switch len(fit) {
		case 0:
			o.line(2, `group: "" # name an agent group that serves environment %s`, r.To)
		case 1:
			o.line(2, "group: %s", text(fit[0]))
		default:
			o.line(2, `group: "" # one of %s`, strings.Join(fit, ", "))
		}
		if is.Target != nil {
			o.line(2, "target: {host: %s, port: %d}", text(is.Target.Host), is.Target.Port)
		} else {
			o.line(2, "profile: %s", text(is.Profile))
		}
		if is.Folder != "" {
			o.line(2, "folder: %s", text(is.Folder))
		}
	}
	return []byte(o.String()), nil
}

// proposed is a name for the copy.
func proposed(name string, r Route) string {
	for _, end := range []string{r.From, strings.TrimSuffix(r.From, "elopment")} { // -development, -dev
		if rest, ok := strings.CutSuffix(name, "-"+end); ok {
			return rest + "-" + r.To
		}
	}
	return name + "-" + r.To
}
