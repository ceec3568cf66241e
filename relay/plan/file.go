package plan

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// file is what one YAML file may hold. docs/workspace-files.md tells of each key.
type file struct {
	Version     int                   `yaml:"version"`
	Workspace   string                `yaml:"workspace"`
	Groups      map[string]group      `yaml:"groups"`
	Roles       map[string]role       `yaml:"roles"`
	Users       map[string]user       `yaml:"users"`
	Services    map[string]service    `yaml:"service_accounts"`
	Teams       map[string]team       `yaml:"teams"`
	Projects    map[string]project    `yaml:"projects"`
	Connections map[string]connection `yaml:"connections"`
	Grants      []grant               `yaml:"grants"`
	Domains     []string              `yaml:"domains"`
	Budget      *limits               `yaml:"budget"`
	Allowlist   []string              `yaml:"allowlist"`
	Allowlists  map[string][]string   `yaml:"allowlists"`
	SignIn      *policy               `yaml:"sign_in_policy"`
}

type (
	group struct {
		Environment string `yaml:"environment" enum:"development,test,production"`
	}
	role struct {
		Actions []string `yaml:"actions"`
	}
	user struct {
		Roles    []string `yaml:"roles" enum:"owner,admin,operator,analyst"`
		Disabled bool     `yaml:"disabled"`
		Person   string   `yaml:"person"`
	}
	team struct {
		Members []string `yaml:"members"`
	}
	connection struct {
		Group       string   `yaml:"group"`
		Profile     string   `yaml:"profile"`
		Target      *target  `yaml:"target"`
		Environment string   `yaml:"environment" enum:"development,test,production"`
		Project     string   `yaml:"project"`
		Folder      string   `yaml:"folder"`
		Gateway     *gateway `yaml:"gateway"`
		Budget      *limits  `yaml:"budget"`
	}
	target struct {
		Host string `yaml:"host"`
		Port uint16 `yaml:"port"`
	}
	gateway struct {
		Address       string   `yaml:"address"`
		TLS           string   `yaml:"tls" enum:"none,server,mutual"`
		Allow         []string `yaml:"allow"`
		ClientCA      string   `yaml:"client_ca"`
		ProxyProtocol bool     `yaml:"proxy_protocol"`
	}
	grant struct {
		Role        string    `yaml:"role"`
		To          string    `yaml:"to"`
		ToTeam      string    `yaml:"to_team"`
		Environment string    `yaml:"environment" enum:"development,test,production"`
		Project     string    `yaml:"project"`
		Folder      string    `yaml:"folder"`
		Connection  string    `yaml:"connection"`
		Until       time.Time `yaml:"until"`
		From        []string  `yaml:"from"`
	}
	limits struct {
		Rate       int64       `yaml:"rate"`
		Burst      int64       `yaml:"burst"`
		Concurrent int64       `yaml:"concurrent"`
		Egress     config.Size `yaml:"egress"`
	}
	policy struct {
		SecondFactor   bool            `yaml:"second_factor"`
		Passkeys       string          `yaml:"passkeys" enum:"allowed,required,off"`
		MinLength      int             `yaml:"min_length"`
		Classes        int             `yaml:"classes"`
		MaxAgeDays     int             `yaml:"max_age_days"`
		History        int             `yaml:"history"`
		Idle           config.Duration `yaml:"idle"`
		Absolute       config.Duration `yaml:"absolute"`
		StepUp         config.Duration `yaml:"step_up"`
		PersonalTokens config.Duration `yaml:"personal_tokens"`
	}
)

// where is the place of something in a file, for faults that are found later.
type where struct {
	doc  *config.Document
	path string
}

func (w where) fault(msg, hint string) config.Fault { return w.doc.Fault(w.path, msg, hint) }

func (w where) at(key string) where { return where{w.doc, config.Join(w.path, key)} }

// Wanted is what the files say. A section that no file has is left alone.
type Wanted struct {
	Workspace string // "" when no file names it

	has         map[string]where // sections
	groups      map[string]wanted[group]
	roles       map[string]wanted[role]
	users       map[string]wanted[user]
	services    map[string]wanted[service]
	teams       map[string]wanted[team]
	projects    map[string]wanted[project]
	connections map[string]wanted[connection]
	grants      []wanted[grant]
	domains     map[string]where
	budget      wanted[limits]
	allowlist   []string
	allowlists  map[string][]string // of people, tokens, agents, gateways
	signIn      wanted[policy]

	faults config.Faults
}

type wanted[T any] struct {
	is T
	where
}

// Load reads files into one whole. Its error is config.Faults, with file, line and place of each, or that of a file that cannot be
// read. A thing that two files name is a fault.
func Load(names ...string) (*Wanted, error) {
	w := &Wanted{has: map[string]where{}, groups: map[string]wanted[group]{}, roles: map[string]wanted[role]{}, users: map[string]wanted[user]{}, teams: map[string]wanted[team]{},
		services: map[string]wanted[service]{}, projects: map[string]wanted[project]{}, connections: map[string]wanted[connection]{}, domains: map[string]where{}}
	for _, name := range names {
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		doc, err := config.Parse(name, data)
		if err != nil {
			return nil, err
		}
		var f file
		if err := doc.Decode(&f); err != nil {
			return nil, err
		}
		w.add(doc, f)
	}
	w.check()
	return w, w.faults.Err()
}

// read does not mind who else may write the file, unlike config.ReadFile: it comes from a checkout, and nothing happens before
// somebody saw the plan.
func read(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the workspace's file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, config.MaxBytes+1)) // Parse refuses what is longer
	if err != nil {
		return nil, fmt.Errorf("read the workspace's file: %w", err)
	}
	return data, nil
}

func (w *Wanted) fault(f config.Fault) { w.faults = append(w.faults, f) }

// add puts a file to those before it.
func (w *Wanted) add(doc *config.Document, f file) {
	top := where{doc, ""}
	if f.Version != 1 {
		w.fault(top.at("version").fault("want the version of this form of file", "write version: 1"))
	}
	if f.Workspace != "" {
		if w.Workspace != "" && w.Workspace != f.Workspace {
			w.fault(top.at("workspace").fault("another file is of another workspace", "plan one workspace at a time"))
		}
		w.Workspace = f.Workspace
	}
	for _, section := range sections {
		if !doc.Has(section) {
			continue
		}
		if was, ok := w.has[section]; ok && slices.Contains([]string{"budget", "allowlist", "allowlists", "sign_in_policy"}, section) {
			w.fault(top.at(section).fault("stands in "+was.doc.File()+", too", "keep it in one file"))
		}
		w.has[section] = top.at(section)
	}
	gather(w, w.groups, f.Groups, top.at("groups"))
	gather(w, w.roles, f.Roles, top.at("roles"))
	gather(w, w.users, f.Users, top.at("users"))
	gather(w, w.services, f.Services, top.at("service_accounts"))
	gather(w, w.teams, f.Teams, top.at("teams"))
	gather(w, w.projects, f.Projects, top.at("projects"))
	gather(w, w.connections, f.Connections, top.at("connections"))
	for i, g := range f.Grants {
		w.grants = append(w.grants, wanted[grant]{g, where{doc, config.Index("grants", i)}})
	}
	w.addDomains(f.Domains, top.at("domains"))
	if f.Budget != nil {
		w.budget = wanted[limits]{*f.Budget, top.at("budget")}
	}
	if f.SignIn != nil {
		w.signIn = wanted[policy]{*f.SignIn, top.at("sign_in_policy")}
	}
	if doc.Has("allowlist") {
		w.allowlist = w.prefixes(f.Allowlist, top.at("allowlist"))
	}
	if doc.Has("allowlists") {
		w.allowlists = map[string][]string{}
		for side, list := range f.Allowlists {
			at := top.at("allowlists").at(side)
			if !slices.Contains(sides, side) {
				w.fault(at.fault("there is no such allowlist", "people, tokens, agents or gateways; that of callers is allowlist"))
				continue
			}
			w.allowlists[side] = w.prefixes(list, at)
		}
	}
}

func gather[T any](w *Wanted, into map[string]wanted[T], from map[string]T, top where) {
	for name, is := range from {
		at := top.at(name)
		if was, ok := into[name]; ok {
			w.fault(at.fault("stands in "+was.doc.File()+", too", "name it once"))
		}
		into[name] = wanted[T]{is, at}
	}
}

// sides are those that can have an allowlist of their own.
var sides = []string{"people", "tokens", "gateways", "agents"}

// prefixes brings networks into the one form that the relay keeps.
func (w *Wanted) prefixes(texts []string, at where) []string {
	var list []netip.Prefix
	for i, s := range texts {
		p, err := allowlist.ParsePrefix(s)
		if err != nil {
			w.fault(where{at.doc, config.Index(at.path, i)}.fault(err.Error(), "write 10.20.0.0/16 without host bits, or 10.20.0.5"))
			continue
		}
		list = append(list, p)
	}
	return sorted(list)
}

func sorted(list []netip.Prefix) []string {
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := []string{}
	for _, p := range slices.Compact(list) {
		out = append(out, p.String())
	}
	return out
}

// check finds what can be known to be wrong without asking the relay, and brings the rest into the form that the relay has it in.
func (w *Wanted) check() {
	for name, r := range w.roles {
		if _, err := authz.ParseRole(name); err == nil {
			w.fault(r.fault("a system role has this name, and cannot be changed", "choose another name"))
		}
		if len(r.is.Actions) == 0 {
			w.fault(r.fault("the role holds no action", "docs/permissions.md lists them"))
		}
		for i, a := range r.is.Actions {
			at := where{r.doc, config.Index(r.at("actions").path, i)}
			if _, err := authz.NewSet(authz.Action(a)); err != nil {
				e := protocol.AsError(err)
				w.fault(at.fault(e.Message, e.Hint))
			} else if slices.Contains(r.is.Actions[:i], a) {
				w.fault(at.fault("stands twice", "name each action once"))
			}
		}
	}
	for name, u := range w.users {
		if name != strings.ToLower(strings.TrimSpace(name)) {
			w.fault(u.fault("a user name has small letters only", "write "+strings.ToLower(strings.TrimSpace(name))))
		}
	}
	w.checkServices()
	w.checkProjects()
	for name, c := range w.connections {
		w.checkConnection(name, c)
		w.checkPlace(c.where, c.is.Project, c.is.Folder)
	}
	seen := map[string]where{}
	for i := range w.grants {
		g := &w.grants[i]
		switch {
		case g.is.Role == "":
			w.fault(g.fault("the grant gives no role", "write role: NAME"))
		case (g.is.To == "") == (g.is.ToTeam == ""):
			w.fault(g.fault("want to or to_team", "to: the name of a user or of a service account; to_team: that of a team"))
		case g.is.Environment != "" && g.is.Connection != "":
			w.fault(g.fault("want environment or connection, not both", "leave both out for the whole workspace"))
		case g.is.Project != "" && g.is.Connection != "":
			w.fault(g.fault("want project or connection, not both", "leave both out for the whole workspace"))
		}
		w.checkPlace(g.where, g.is.Project, g.is.Folder)
		g.is.Until = g.is.Until.Truncate(time.Millisecond)
		g.is.From = w.prefixes(g.is.From, g.at("from"))
		k := g.is.key()
		if was, ok := seen[k]; ok {
			w.fault(g.fault(fmt.Sprintf("is the same as %s in %s", was.path, was.doc.File()), "write it once"))
		}
		seen[k] = g.where
	}
	// What a user's roles are short for.
	for name, u := range w.users {
		for i, r := range u.is.Roles {
			g := grant{Role: r, To: name}
			at := where{u.doc, config.Index(u.at("roles").path, i)}
			if was, ok := seen[g.key()]; ok {
				w.fault(at.fault(fmt.Sprintf("is the same as %s in %s", was.path, was.doc.File()), "write it once"))
			}
			seen[g.key()] = at
		}
	}
}

func (w *Wanted) checkConnection(name string, c wanted[connection]) {
	switch {
	case c.is.Group == "":
		w.fault(c.fault("no agent group is named", "write group: NAME"))
	case (c.is.Profile == "") == (c.is.Target == nil):
		w.fault(c.fault("want profile or target", "profile: a name in agent.yaml; target: host and port that the site's allow list admits"))
	case c.is.Target != nil:
		host, _, err := allowlist.CanonicalHost(c.is.Target.Host)
		if err != nil || c.is.Target.Port == 0 {
			w.fault(c.at("target").fault("want host and port", "target: {host: erp.corp, port: 3200}"))
		}
		c.is.Target = &target{host, c.is.Target.Port}
	}
	if g := c.is.Gateway; g != nil {
		is, at := *g, c.at("gateway")
		if is.TLS == "" {
			is.TLS = client.GatewayPlain
		}
		a, err := netip.ParseAddrPort(is.Address)
		if err != nil {
			w.fault(at.at("address").fault("want an address of the relay's machine and a port", "10.0.0.5:15432 or [2001:db8::5]:15432"))
		}
		is.Address, is.Allow = a.String(), w.prefixes(is.Allow, at.at("allow"))
		if (is.TLS == client.GatewayMutual) != (is.ClientCA != "") {
			w.fault(at.fault("tls: mutual and client_ca belong together", "client_ca: the CA's certificates in PEM form, never a key"))
		}
		if strings.Contains(is.ClientCA, "PRIVATE KEY") {
			w.fault(at.at("client_ca").fault("holds a private key", "nothing was sent; take the key out of the file, and its history"))
		}
		c.is.Gateway = &is
	}
	w.connections[name] = c
}

// key tells grants apart: two with the same key give the same.
func (g grant) key() string {
	until := ""
	if !g.Until.IsZero() {
		until = g.Until.UTC().Format(time.RFC3339Nano)
	}
	return strings.Join([]string{g.Role, g.To, g.ToTeam, g.Environment, g.Project, g.Folder, g.Connection, until, strings.Join(g.From, " ")}, "\n")
}

// String is the grant in one line.
func (g grant) String() string {
	s := g.Role + " to "
	if g.ToTeam != "" {
		s += "team " + g.ToTeam
	} else {
		s += g.To
	}
	switch {
	case g.Connection != "":
		s += " on connection " + g.Connection
	case g.Project != "":
		if s += " on project " + at(g.Project, g.Folder); g.Environment != "" {
			s += " in " + g.Environment
		}
	case g.Environment != "":
		s += " on environment " + g.Environment
	default:
		s += " on the workspace"
	}
	if !g.Until.IsZero() {
		s += " until " + g.Until.UTC().Format(time.RFC3339)
	}
	if len(g.From) > 0 {
		s += " from " + strings.Join(g.From, " ")
	}
	return s
}

func grantOf(g client.Grant) grant {
	o := grant{Role: g.Role, ToTeam: g.Team, Environment: g.Environment, Project: g.Project, Folder: g.Folder, Connection: g.Connection}
	if g.Team == "" {
		o.To = g.PrincipalName
	}
	if g.Until != nil {
		o.Until = *g.Until
	}
	var from []netip.Prefix
	for _, s := range g.From {
		if p, err := netip.ParsePrefix(s); err == nil {
			from = append(from, p)
		}
	}
	o.From = sorted(from)
	return o
}

func (l limits) api() client.Limits {
	return client.Limits{Rate: l.Rate, Burst: l.Burst, Concurrent: l.Concurrent, Egress: int64(l.Egress)}
}

// api is the policy as the relay tells it: with the defaults filled in.
func (p policy) api() client.SignInPolicy {
	return client.SignInPolicy{SecondFactor: p.SecondFactor, Passkeys: p.Passkeys, MinLength: p.MinLength, Classes: p.Classes, MaxAgeDays: p.MaxAgeDays, History: p.History,
		IdleSeconds: seconds(p.Idle), AbsoluteSeconds: seconds(p.Absolute), StepUpSeconds: seconds(p.StepUp), PersonalTokenSeconds: seconds(p.PersonalTokens)}.InForce()
}

func seconds(d config.Duration) int64 { return int64(time.Duration(d) / time.Second) }
