package api

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// particulars are what the record of a change says of the thing that it is about: by ids, since names may be given again, and by the
// keys of audit.DetailClass. Values that are empty are left out.
type particulars map[string]string

// keyOld is where what was otherwise before stands, as "key=value; key=value".
const keyOld = "old"

// keyNew is where what the request set stands, if somebody else has set it otherwise meanwhile.
const keyNew = "new"

// tell has the record of the change, and that of its refusal, say more.
func (v *visit) tell(p particulars) {
	if v.detail == nil {
		v.detail = map[string]string{}
	}
	maps.Copy(v.detail, p)
}

// about tells what the thing in the path is before anything is done, for the records of intent and refusal, too.
func (v *visit) about(path string) {
	v.was = described(v.workspace, path, v.request.PathValue, "")
	v.tell(v.was)
}

// wanting tells what the request wants.
func (v *visit) wanting(input any) {
	v.wants = wanted(v.workspace, input)
	v.tell(v.wants)
}

// became tells what became of it, from the state after the change; output is the answer.
func (v *visit) became(now *directory.Workspace, path string, output any) {
	was := v.was
	is := described(now, path, v.request.PathValue, cmp.Or(idOf(output), was["id"]))
	if is == nil { // it is gone, and the grants on it are, too
		if was["id"] != "" {
			v.tell(particulars{"grants": join(grantsWith(v.workspace, was["id"]))}.tidy())
		}
		return
	}
	var old []string
	if was != nil {
		for _, k := range slices.Sorted(maps.Keys(both(was, is))) {
			if was[k] != is[k] && audit.DetailClass(k) == "public" {
				old = append(old, k+"="+was[k])
			}
		}
	}
	var set []string
	for _, k := range []string{"actions", "address", "settings"} { // what is replaced whole
		if v.wants[k] != "" && is[k] != v.wants[k] {
			set = append(set, k+"="+v.wants[k])
		}
	}
	for k := range was { // what it no longer has
		delete(v.detail, k)
	}
	v.tell(is)
	v.tell(particulars{keyOld: strings.Join(old, "; "), keyNew: strings.Join(set, "; ")}.tidy())
}

func both(p, q particulars) particulars {
	all := maps.Clone(p)
	maps.Copy(all, q)
	return all
}

// idOf is the id in the body of an answer.
func idOf(output any) string {
	v := reflect.ValueOf(output)
	if v.Kind() != reflect.Pointer || v.IsNil() {
		return ""
	}
	if body := v.Elem().FieldByName("Body"); body.IsValid() && body.Kind() == reflect.Struct {
		if f := body.FieldByName("ID"); f.IsValid() && f.Kind() == reflect.String {
			return f.String()
		}
	}
	return ""
}

// described finds what a route of a workspace is about, and describes it; nil when it is not there. id goes before what the path names:
// of something new, which no path names yet, or that was named by what it is no longer called.
func described(w *directory.Workspace, path string, value func(string) string, id string) particulars {
	_, rest, ok := strings.Cut(path, "/workspaces/{workspace}/")
	if !ok || w == nil {
		return nil
	}
	kind, rest, _ := strings.Cut(rest, "/")
	named := cmp.Or(id, value("name"), value("id"))
	switch kind {
	case "allowlist":
		return sourcesOf(w)
	case "budget":
		return particulars{"settings": budgetText(w.Budget)}
	case "sign-in-policy":
		return particulars{"settings": signInText(w.SignIn.InForce())}
	case "grants":
		if g, err := w.Grant(named); err == nil {
			return ofGrant(g)
		}
	case "roles":
		if r, err := w.Role(named); err == nil {
			return particulars{"id": r.ID, "actions": join(texts(r.Set.Least()))}.tidy()
		}
	case "teams":
		return ofTeam(w, value("name"), value("id"), id)
	case "connections":
		if c, err := w.Connection(named); err == nil {
			return ofConnection(c)
		}
	case "projects":
		return ofProject(w, rest, value, id)
	case "tokens":
		if t, err := apiToken(w, named); err == nil {
			return ofToken(t)
		}
	case "users", "service-accounts":
		return ofPrincipal(w, named)
	case "groups":
		if g, err := w.Group(named); err == nil {
			return particulars{"id": g.ID, "environment": string(g.Environment)}.tidy()
		}
	case "agents":
		if a, err := w.Agent(named); err == nil {
			return particulars{"id": a.ID, "group": a.Group, "state": onOff(a.Disabled)}
		}
	case "join-tokens":
		if t, err := joinToken(w, named); err == nil {
			return particulars{"id": t.ID, "group": t.Group, "expires_at": stamp(t.Expires)}.tidy()
		}
	case "domains":
		if d, err := w.Domain(named); err == nil {
			return particulars{"id": d.ID, "host": d.Name}
		}
	case "sessions":
		if s, err := session(w, named); err == nil {
			return particulars{"id": s.ID, "principal": s.Principal.ID}
		}
	}
	return nil
}

func ofGrant(g *directory.Grant) particulars {
	p := particulars{"id": g.ID, "role": string(g.Role), "environment": string(g.Environment), "project": g.Grant.Project, "folder": g.Folder,
		"connection": g.Connection, "expires_at": stamp(g.Until), "prefixes": networks(g.From)}
	if g.Principal != nil {
		p["principal"] = g.Principal.ID
	}
	if g.Team != nil {
		p["team"] = g.Team.ID
	}
	return p.tidy()
}

func ofTeam(w *directory.Workspace, name, member, id string) particulars {
	t, err := w.Team(cmp.Or(id, name))
	if err != nil {
		return nil
	}
	p := particulars{"id": t.ID}
	if member == "" {
		for _, m := range t.Members {
			p["principals"] += ", " + m.ID
		}
		p["principals"] = strings.TrimPrefix(p["principals"], ", ")
		return p.tidy()
	}
	if m, err := w.FindPrincipal(member); err == nil {
		p["principal"], p["state"] = m.ID, "no member"
		if slices.Contains(t.Members, m) {
			p["state"] = "member"
		}
	}
	return p
}

func ofConnection(c *directory.Connection) particulars {
	p := particulars{"id": c.ID, "group": c.Group, "profile": c.Profile, "host": c.Host, "environment": string(c.Environment)}
	if c.Port != 0 {
		p["port"] = strconv.Itoa(int(c.Port))
	}
	if c.Project != nil {
		p["project"] = c.Project.ID
	}
	if c.Folder != nil {
		p["folder"] = c.Folder.ID
	}
	if c.Budget != (budget.Limits{}) {
		p["settings"] = budgetText(c.Budget)
	}
	if g := c.Gateway; g != nil {
		p["address"], p["mode"], p["prefixes"] = g.Address.String(), g.TLS, networks(g.Allow)
		if len(g.ClientCA) > 0 {
			p["certificate"] = digest(string(g.ClientCA))
		}
		if g.ProxyProtocol {
			p["mode"] += ", proxy protocol"
		}
	}
	return p.tidy()
}

func ofProject(w *directory.Workspace, rest string, value func(string) string, id string) particulars {
	if !strings.Contains(rest, "folders") {
		if p, err := w.Project(cmp.Or(id, value("name"))); err == nil {
			return particulars{"id": p.ID}
		}
		return nil
	}
	p, err := w.Project(value("name"))
	if err != nil {
		return nil
	}
	if f, err := p.Folder(cmp.Or(id, value("id"))); err == nil {
		return particulars{"id": f.ID, "project": p.ID}
	}
	return nil
}

func ofToken(t *directory.Token) particulars {
	only := t.Only()
	p := particulars{"id": t.ID, "principal": t.Principal.ID, "expires_at": stamp(t.Expires), "actions": join(only.Actions), "environments": join(only.Environments),
		"projects": join(only.Projects), "connections": join(only.Connections), "prefixes": networks(only.From)}
	if !t.Revoked.IsZero() {
		p["state"] = "revoked"
	}
	return p.tidy()
}

// ofPrincipal tells of a user or service account: whether it is let in, and all that it holds by itself, by the grants' ids and roles.
func ofPrincipal(w *directory.Workspace, nameOrID string) particulars {
	pr, err := w.FindPrincipal(nameOrID)
	if err != nil {
		return nil
	}
	p := particulars{"id": pr.ID, "state": onOff(pr.Disabled)}
	var held []string
	for _, g := range pr.Grants {
		if g.Team == "" {
			held = append(held, fmt.Sprintf("%s %s", g.ID, g.Role))
		}
	}
	p["roles"] = join(held)
	if q := w.PersonOf(pr.ID); q != nil {
		p["expires_at"] = stamp(q.InvitedUntil) // of the open one-time code
		if to := addressFor(w, q); to != "" {
			p["email"] = to
		}
	}
	return p.tidy()
}

// sourcesOf tells of each side's list how long it is and its digest: two that are the same have the same one.
func sourcesOf(w *directory.Workspace) particulars {
	var all []string
	for _, s := range directory.Sides {
		if list, own := w.Sources(s); own {
			all = append(all, fmt.Sprintf("%s %d sha256:%s", s, len(list), digest(networks(list))))
		}
	}
	return particulars{"settings": join(all)}
}

// wanted tells what a request wants, for the record of its refusal, and of what it set where another was faster. What is called by a
// name that is not there stands under name, which is sensitive: it may be anything.
func wanted(w *directory.Workspace, input any) particulars {
	p := particulars{}
	unknown := func(name string) string {
		if name != "" && p["name"] != "" {
			name = p["name"] + ", " + name
		}
		p["name"] = name
		return ""
	}
	place := func(at directory.Place) (project, folder string) {
		pr, f, err := w.Place(at)
		switch {
		case err != nil:
			return unknown(strings.Trim(at.Project+"/"+at.Folder, "/")), ""
		case f != nil:
			folder = f.ID
		}
		if pr != nil {
			project = pr.ID
		}
		return project, folder
	}
	role := func(name string) string {
		if r, err := authz.ParseRole(name); err == nil {
			return string(r)
		}
		if r, err := w.Role(name); err == nil {
			return r.ID
		}
		return unknown(name)
	}
	roles := func(names []string) string {
		var ids []string
		for _, n := range names {
			if id := role(n); id != "" {
				ids = append(ids, id)
			}
		}
		return join(ids)
	}
	who := func(nameOrID string) string {
		if nameOrID == "" {
			return ""
		}
		if pr, err := w.FindPrincipal(nameOrID); err == nil {
			return pr.ID
		}
		return unknown(nameOrID)
	}
	switch i := input.(type) {
	case *in[client.NewGrant]:
		b := i.Body
		p["role"], p["environment"], p["prefixes"], p["principal"] = role(b.Role), b.Environment, join(b.From), who(b.Principal)
		p["project"], p["folder"] = place(directory.Place{Project: b.Project, Folder: b.Folder})
		if t, err := w.Team(b.Team); err == nil {
			p["team"] = t.ID
		} else if b.Team != "" {
			unknown(b.Team)
		}
		if c, err := w.Connection(b.Connection); err == nil {
			p["connection"] = c.ID
		} else if b.Connection != "" {
			unknown(b.Connection)
		}
	case *in[client.NewConnection]:
		b := i.Body
		p["profile"], p["environment"] = b.Profile, b.Environment
		p["project"], p["folder"] = place(directory.Place{Project: b.Project, Folder: b.Folder})
		if g, err := w.Group(b.Group); err == nil {
			p["group"] = g.ID
		} else {
			unknown(b.Group)
		}
		if b.Target != nil {
			p["host"], p["port"] = b.Target.Host, strconv.Itoa(int(b.Target.Port))
		}
	case *inNamed[client.SetPlace]:
		project, folder := place(directory.Place{Project: i.Body.Project, Folder: i.Body.Folder})
		if p["to"] = cmp.Or(project, "no project"); folder != "" {
			p["to"] += ", " + folder
		}
	case *in[client.SetRole]:
		p["actions"] = join(i.Body.Actions)
	case *inNamed[client.SetRole]:
		p["actions"] = join(i.Body.Actions)
	case *in[client.NewToken]:
		p["roles"], p["principal"] = roles(i.Body.Roles), who(i.Body.Principal)
	case *in[client.NewUser]:
		p["roles"] = roles(i.Body.Roles)
	case *in[client.NewServiceAccount]:
		p["roles"] = roles(i.Body.Roles)
	case *in[client.SetAllowlist]:
		p["kind"], p["count"], p["digest"] = cmp.Or(i.Body.For, string(directory.Callers)), strconv.Itoa(len(i.Body.Prefixes)), "sha256:"+digest(join(i.Body.Prefixes))
		p["mode"] = map[bool]string{true: "dry run"}[i.Body.DryRun]
	case *in[client.SignInPolicy]:
		p["settings"] = signInText(signInOf(i.Body).InForce())
	case *in[client.Limits]:
		p["settings"] = budgetText(budgetOf(i.Body))
	case *inNamed[client.Limits]:
		p["settings"] = budgetText(budgetOf(i.Body))
	case *inNamed[client.SetGateway]:
		p["address"], p["prefixes"] = i.Body.Address, join(i.Body.Allow)
	}
	return p.tidy()
}

// grantsWith are the ids of grants to or on the thing of an id.
func grantsWith(w *directory.Workspace, id string) (ids []string) {
	for _, g := range w.Grants {
		if g.Grant.Project == id || g.Folder == id || g.Connection == id || g.Team != nil && g.Team.ID == id || g.Principal != nil && g.Principal.ID == id {
			ids = append(ids, g.ID)
		}
	}
	return ids
}

func budgetText(l budget.Limits) string {
	return fmt.Sprintf("rate=%v burst=%v concurrent=%v egress=%v", l.Rate, l.Burst, l.Concurrent, l.Egress)
}

func signInText(s directory.SignIn) string {
	return fmt.Sprintf("second_factor=%t passkeys=%s min_length=%d classes=%d max_age_days=%d history=%d idle=%s absolute=%s step_up=%s personal_tokens=%s", s.SecondFactor, s.Passkeys,
		s.MinLength, s.Classes, s.MaxAgeDays, s.History, s.Idle, s.Absolute, s.StepUp, s.PersonalTokens)
}

func networks(list []netip.Prefix) string { return join(prefixes(list)) }

func join[T ~string](list []T) string {
	texts := make([]string, len(list))
	for n, t := range list {
		texts[n] = string(t)
	}
	return strings.Join(texts, ", ")
}

func onOff(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "enabled"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// as puts the id under another key, where id is the session's.
func (p particulars) as(key string) particulars {
	p[key] = p["id"]
	delete(p, "id")
	return p
}

// tidy leaves out what is empty.
func (p particulars) tidy() particulars {
	maps.DeleteFunc(p, func(_, v string) bool { return v == "" })
	return p
}
