package authz

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Kind says what a principal is.
type Kind string

const (
	User    Kind = "user"
	Service Kind = "service"
	Gateway Kind = "gateway"
)

// Environment is a division of a workspace. Each connection stands in one.
type Environment string

const (
	Development Environment = "development"
	Test        Environment = "test"
	Production  Environment = "production"
)

// Environments lists them all.
var Environments = []Environment{Development, Test, Production}

// Scope is what an action is about, or what a grant is given on. Ids, not names. Scopes lie in each other: a connection in
// its environment and, beside that, in its folder, that in the folders above it, those in their project; all in the workspace.
// Projects and environments lie across each other: what names both is what stands in both. A level that comes later (recipe) is
// one more field here, and one more line in place and in decide.
type Scope struct {
	Workspace   string
	Environment Environment // empty: the whole workspace, or the project in all environments
	Project     string      // empty: in none
	Folder      string      // its id behind those of the folders above it, joined by "/"; empty: in none
	Connection  string      // empty for what is about what it would stand in
}

// Grant gives a role on a scope: on a workspace, on an environment of it, on a project of it, on a folder of that with all folders
// below it (either in one environment, or in all of them), or on one connection (and nothing else named: a connection is itself,
// wherever it stands).
type Grant struct {
	ID          string
	Role        Role
	Custom      Set // what a custom role holds; not looked at when Role is a system role
	Workspace   string
	Environment Environment
	Project     string // id
	Folder      string // id of a folder of Project
	Connection  string
	Team        string         // id of the team through which it is held; empty: given to the principal itself
	Until       time.Time      // zero: without end
	From        []netip.Prefix // empty: from everywhere
}

// Equal reports whether two grants are the same in everything.
func (g Grant) Equal(o Grant) bool {
	return g.ID == o.ID && g.Role == o.Role && g.Custom == o.Custom && g.Workspace == o.Workspace && g.Environment == o.Environment &&
		g.Project == o.Project && g.Folder == o.Folder && g.Connection == o.Connection && g.Team == o.Team && g.Until.Equal(o.Until) && slices.Equal(g.From, o.From)
}

// Set gives the actions that the grant's role holds.
func (g Grant) Set() Set {
	if g.Role.bit() != 0 {
		return g.Role.Set()
	}
	return g.Custom
}

// Scope is what the grant is given on, without what that lies in: of a folder, those above it; of a connection, everything.
func (g Grant) Scope() Scope {
	return Scope{Workspace: g.Workspace, Environment: g.Environment, Project: g.Project, Folder: g.Folder, Connection: g.Connection}
}

// sound reports whether what the grant names can be named together.
func (g Grant) sound() bool {
	switch {
	case g.Connection != "":
		return g.Environment == "" && g.Project == "" && g.Folder == ""
	case g.Folder != "" && (g.Project == "" || strings.Contains(g.Folder, "/")):
		return false
	}
	return g.Environment == "" || slices.Contains(Environments, g.Environment)
}

// At is when and from where somebody asks. Of the zero value, no grant counts that has an end or a source.
type At struct {
	Time   time.Time
	Source netip.Addr // unmapped
}

// Principal is who asks. It belongs to one workspace; grants on others are void. Make it by NewPrincipal; the zero value may
// do nothing. Immutable, cheap to copy, safe for concurrent use.
type Principal struct {
	ID        string
	Workspace string
	Name      string
	Kind      Kind
	Token     string // id of the token that it came with, empty when none
	rights    *rights
	limits    []*Limits // of the token
}

// rights is what a principal holds, by scope.
type rights struct {
	workspace    *holding
	environments map[Environment]*holding
	projects     map[inProject]*holding
	connections  map[string]*holding
	roles        []Role // on the whole workspace
}

// inProject is a project or a folder of it, in one environment or, for "", in all.
type inProject struct {
	project, folder string
	environment     Environment
}

// holding is what is given on one scope.
type holding struct {
	anywhere []held                  // by grants without source
	from     map[netip.Prefix][]held // by grants with: under each of their prefixes
	bits     [2][]int                // the lengths of these prefixes, IPv4 and IPv6, the longest first
}

// held is a grant, or what is left of it beside others: in each list the one that lasts longest comes first, and one that adds
// no action to those before it is left out. So a list is never longer than the permission table, however many grants there are,
// and the first that holds an action is the one that holds it longest.
type held struct {
	set   Set
	until int64 // Unix milliseconds; endless when there is no end
	id    string
}

const endless = math.MaxInt64

// NewPrincipal gathers what a principal may do. Grants of another workspace, of unknown roles, on an environment that there is
// not, on a folder of no project, and on a connection and something else at once give nothing.
func NewPrincipal(id, workspace, name string, kind Kind, grants []Grant) Principal {
	p := Principal{ID: id, Workspace: workspace, Name: name, Kind: kind,
		rights: &rights{environments: map[Environment]*holding{}, projects: map[inProject]*holding{}, connections: map[string]*holding{}}}
	for _, g := range sorted(grants) {
		if g.Workspace != workspace || g.Set() == (Set{}) {
			continue
		}
		h := held{set: g.Set(), until: endless, id: g.ID}
		if !g.Until.IsZero() {
			h.until = g.Until.UnixMilli()
		}
		at := p.rights.place(g)
		if at == nil {
			continue
		}
		at.add(h, g.From)
		if at == p.rights.workspace && !slices.Contains(p.rights.roles, g.Role) {
			p.rights.roles = append(p.rights.roles, g.Role)
		}
	}
	p.rights.each(func(h *holding) {
		for _, lengths := range h.bits {
			slices.SortFunc(lengths, func(a, b int) int { return b - a })
		}
	})
	slices.SortFunc(p.rights.roles, func(a, b Role) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	return p
}

// rank orders system roles before custom ones, the widest first.
func rank(r Role) int {
	if i := slices.Index(Roles, r); i >= 0 {
		return i
	}
	return len(Roles)
}

// sorted puts grants in the order that held wants: what lasts longest first; of equals the narrowest, which is the most telling
// to name.
func sorted(grants []Grant) []Grant {
	out := slices.Clone(grants)
	slices.SortFunc(out, func(a, b Grant) int {
		switch {
		case a.Until.IsZero() != b.Until.IsZero():
			if a.Until.IsZero() {
				return -1
			}
			return 1
		case !a.Until.Equal(b.Until):
			return b.Until.Compare(a.Until)
		}
		return cmp.Or(cmp.Compare(a.Set().Len(), b.Set().Len()), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// place is where a grant counts, nil for nowhere.
func (r *rights) place(g Grant) *holding {
	switch {
	case !g.sound():
		return nil
	case g.Connection != "":
		return fresh(r.connections, g.Connection)
	case g.Project != "":
		return fresh(r.projects, inProject{g.Project, g.Folder, g.Environment})
	case g.Environment != "":
		return fresh(r.environments, g.Environment)
	}
	if r.workspace == nil {
		r.workspace = &holding{}
	}
	return r.workspace
}

// fresh gives what is held at a place, which it makes if there is nothing yet.
func fresh[K comparable](m map[K]*holding, at K) *holding {
	h := m[at]
	if h == nil {
		h = &holding{}
		m[at] = h
	}
	return h
}

// within gives, one by one, what is held on the project and the folders that a scope lies in, until f says that it is enough.
func (r *rights) within(s Scope, f func(h *holding, on string) bool) bool {
	if s.Project == "" || len(r.projects) == 0 {
		return false
	}
	ask := func(folder, on string) bool {
		if h := r.projects[inProject{s.Project, folder, ""}]; h != nil && f(h, on) {
			return true
		}
		if s.Environment == "" {
			return false
		}
		h := r.projects[inProject{s.Project, folder, s.Environment}]
		return h != nil && f(h, on)
	}
	if ask("", "project") {
		return true
	}
	for rest := s.Folder; rest != ""; {
		var id string
		if id, rest, _ = strings.Cut(rest, "/"); id != "" && ask(id, "folder") {
			return true
		}
	}
	return false
}

func (r *rights) each(f func(*holding)) {
	if r.workspace != nil {
		f(r.workspace)
	}
	for _, h := range r.environments {
		f(h)
	}
	for _, h := range r.projects {
		f(h)
	}
	for _, h := range r.connections {
		f(h)
	}
}

func (h *holding) add(one held, from []netip.Prefix) {
	if len(from) == 0 {
		h.anywhere = adding(h.anywhere, one)
		return
	}
	if h.from == nil {
		h.from = map[netip.Prefix][]held{}
	}
	for _, p := range from { // one that is not in its plain form matches nothing
		h.from[p] = adding(h.from[p], one)
		if l := &h.bits[family(p.Addr())]; !slices.Contains(*l, p.Bits()) {
			*l = append(*l, p.Bits())
		}
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func adding(list []held, one held) []held {
	left := one.set
	for _, h := range list {
		left = left.Without(h.set)
	}
	if left == (Set{}) {
		return list
	}
	return append(list, one)
}

// longest finds the grant that gives the action at this place in a list for longest.
func longest(list []held, action int) (held, bool) {
	for _, h := range list {
		if h.set.has(action) {
			return h, true
		}
	}
	return held{}, false
}

// allows finds a grant by which the action may be done now and from there.
func (h *holding) allows(action int, now int64, source netip.Addr) (id string, ok bool) {
	if h == nil {
		return "", false
	}
	good := func(list []held) bool {
		one, _ := longest(list, action) // what is not found is over at any time
		if one.until != endless && (now <= 0 || now >= one.until) {
			return false
		}
		id = one.id
		return true
	}
	if good(h.anywhere) {
		return id, true
	}
	if h.from == nil || !source.IsValid() || source.Zone() != "" || source.Is4In6() {
		return "", false
	}
	for _, n := range h.bits[family(source)] {
		if p, err := source.Prefix(n); err == nil && good(h.from[p]) {
			return id, true
		}
	}
	return "", false
}

// NewGateway is whoever comes in through a gateway: it may dial the one connection that the gateway is of, and nothing else.
func NewGateway(id, workspace, connection, name string) Principal {
	dial := &holding{anywhere: []held{{Set{}.with(table[Dial]), endless, id}}}
	return Principal{ID: id, Workspace: workspace, Name: name, Kind: Gateway, rights: &rights{connections: map[string]*holding{connection: dial}}}
}

// Roles lists the roles that the principal was given on its whole workspace, whatever their limits: system roles, the widest
// first, then custom ones.
func (p Principal) Roles() []Role {
	if p.rights == nil {
		return nil
	}
	return slices.Clone(p.rights.roles)
}

// Decision is an answer with its ground. Grant is the grant that allowed; Reason is safe to show to the caller.
type Decision struct {
	Allow   bool
	Grant   string
	Reason  string
	Limited bool // a grant allows it, and the token's limits do not
}

// Decide answers whether p may do a on s, at that time and from there. Everything that is not granted is denied, and so is every
// unknown action, a scope in another workspace, and an action on a connection that names none. What has an end is over when it
// is reached.
func Decide(p Principal, a Action, s Scope, at At) Decision {
	action, ok := table[a]
	switch {
	case !ok:
		return Decision{Reason: "no such action"}
	case p.ID == "" || p.rights == nil || s.Workspace == "" || p.Workspace != s.Workspace:
		return Decision{Reason: "not of this workspace"}
	case Actions[action].Level == OnConnection && s.Connection == "":
		return Decision{Reason: "the action is about a connection and none is named"}
	case Actions[action].Level == OnEnvironment: // whatever else is named
		s = Scope{Workspace: s.Workspace, Environment: s.Environment}
	}
	d := p.rights.decide(action, s, at)
	if d.Allow && len(p.limits) > 0 {
		if reason := p.refusal(action, s, at); reason != "" {
			return Decision{Reason: reason, Limited: true}
		}
	}
	return d
}

func (r *rights) decide(action int, s Scope, at At) Decision {
	now := at.Time.UnixMilli()
	if id, ok := r.workspace.allows(action, now, at.Source); ok {
		return Decision{Allow: true, Grant: id, Reason: "granted on the workspace"}
	}
	if Actions[action].Level != OnWorkspace {
		if id, ok := r.environments[s.Environment].allows(action, now, at.Source); ok {
			return Decision{Allow: true, Grant: id, Reason: "granted on the environment"}
		}
		d := Decision{}
		if r.within(s, func(h *holding, on string) bool {
			id, ok := h.allows(action, now, at.Source)
			if ok {
				d = Decision{Allow: true, Grant: id, Reason: "granted on the " + on}
			}
			return ok
		}) {
			return d
		}
		if id, ok := r.connections[s.Connection].allows(action, now, at.Source); ok {
			return Decision{Allow: true, Grant: id, Reason: "granted on the connection"}
		}
	}
	return Decision{Reason: "no grant allows " + string(Actions[action].Action)}
}

// Somewhere reports whether p may do a on some scope of the workspace: what may be done nowhere can be refused before it is
// known what it is about. It allows nothing by itself.
func Somewhere(p Principal, a Action, workspace string, at At) Decision {
	action, ok := table[a]
	d := Decide(p, a, Scope{Workspace: workspace}, at)
	if d.Allow || !ok || p.ID == "" || p.rights == nil || workspace == "" || p.Workspace != workspace || Actions[action].Level == OnWorkspace {
		return d
	}
	if Actions[action].Level == OnEnvironment { // of these there are few
		for _, e := range Environments {
			if in := Decide(p, a, Scope{Workspace: workspace, Environment: e}, at); in.Allow {
				return Decision{Allow: true, Grant: in.Grant, Reason: "granted on a part of the workspace"}
			} else if in.Limited {
				d = in
			}
		}
		return d
	}
	for _, l := range p.limits { // wherever it is: what they are placed on is for the decision on the scope itself
		if l.ByAction && !l.Actions.has(action) || len(l.From) > 0 && !within(l.From, at.Source) {
			return d
		}
	}
	p.rights.each(func(h *holding) {
		if id, ok := h.allows(action, at.Time.UnixMilli(), at.Source); ok && !d.Allow {
			d = Decision{Allow: true, Grant: id, Reason: "granted on a part of the workspace"}
		}
	})
	return d
}

// Anything reports whether p may do anything on a connection: of who may not, nothing tells that it is there.
func Anything(p Principal, s Scope, at At) bool {
	for _, row := range Actions {
		if row.Level.inside() && s.Connection != "" && Decide(p, row.Action, s, at).Allow {
			return true
		}
	}
	return false
}
