package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Export writes the workspace as a file that Load reads and Make finds nothing to do for. Grants that are over are left out.
func Export(ctx context.Context, c *client.Client) ([]byte, error) {
	all := func(string) bool { return true }
	s, err := look(ctx, c, all, all)
	if err != nil {
		return nil, err
	}
	o := &writer{}
	o.line(0, "# Workspace %s. Tokens, passwords, e-mail addresses and what agents enrol with are not here.", text(s.me.Workspace))
	o.line(0, "version: 1")
	o.line(0, "workspace: %s", text(s.me.Workspace))
	for _, section := range sections {
		o.line(0, "")
		o.section(section, s)
	}
	return []byte(o.String()), nil
}

type writer struct{ strings.Builder }

func (o *writer) line(depth int, format string, args ...any) {
	if l := strings.Repeat("  ", depth) + fmt.Sprintf(format, args...); strings.TrimSpace(l) != "" {
		o.WriteString(l)
	}
	o.WriteByte('\n')
}

// text is a name as YAML reads it back: bare where nothing can be taken for anything else, else in the form of JSON.
func text(s string) string {
	bare := s != "" && s[0] >= 'a' && s[0] <= 'z'
	for i := 0; bare && i < len(s); i++ {
		b := s[i]
		bare = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("_-.@", b) >= 0
	}
	if bare && !slices.Contains([]string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "inf", "nan"}, strings.ToLower(s)) {
		return s
	}
	b, _ := json.Marshal(s) // a string has its form always
	return string(b)
}

func flow(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = text(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func (o *writer) section(name string, s *state) {
	// head writes the section's key, and whether it has something below it.
	head := func(n int, none string) bool {
		if n == 0 {
			o.line(0, "%s: %s", name, none)
			return false
		}
		o.line(0, "%s:", name)
		return true
	}
	users := byName(s.users, func(u client.User) string { return u.Name })
	switch name {
	case "groups":
		if head(len(s.groups), "{}") {
			for _, g := range s.groups {
				if g.Environment == "" {
					o.line(1, "%s: {}", text(g.Name))
				} else {
					o.line(1, "%s: {environment: %s}", text(g.Name), g.Environment)
				}
			}
		}
	case "roles":
		if head(len(s.roles), "{}") {
			for _, r := range s.roles {
				o.line(1, "%s:", text(r.Name))
				o.line(2, "actions: %s", flow(r.Actions))
			}
		}
	case "users":
		if head(len(s.users), "{}") {
			for _, u := range s.users {
				o.line(1, "%s:", text(u.Name))
				o.line(2, "roles: %s", flow(plainRoles(s, u.Name)))
				if u.Disabled {
					o.line(2, "disabled: true")
				}
			}
		}
	case "service_accounts":
		if head(len(s.services), "{}") {
			for _, a := range s.services {
				if a.Disabled {
					o.line(1, "%s: {disabled: true}", text(a.Name))
				} else {
					o.line(1, "%s: {}", text(a.Name))
				}
			}
		}
	case "domains":
		if head(len(s.domains), "[]") {
			for _, d := range s.domains {
				o.line(1, "- %s", text(d.Name))
			}
		}
	case "teams":
		if head(len(s.teams), "{}") {
			for _, t := range s.teams {
				var members []string
				for _, p := range t.Members {
					members = append(members, p.Name)
				}
				o.line(1, "%s:", text(t.Name))
				o.line(2, "members: %s", flow(members))
			}
		}
	case "projects":
		if head(len(s.projects), "{}") {
			o.projects(s)
		}
	case "connections":
		if head(len(s.connections), "{}") {
			for _, c := range s.connections {
				o.connection(c, s.budgets[c.Name])
			}
		}
	case "grants":
		var list []grant
		seen := map[string]bool{}
		for _, is := range s.grants {
			g := grantOf(is)
			if _, user := users[g.To]; user && plain(g) || seen[g.key()] {
				continue
			}
			seen[g.key()] = true
			list = append(list, g)
		}
		slices.SortFunc(list, func(a, b grant) int { return strings.Compare(a.String(), b.String()) })
		if head(len(list), "[]") {
			for _, g := range list {
				o.grant(g)
			}
		}
	case "budget":
		o.line(0, "budget: %s", budgetText(s.budgets[""].Set))
	case "allowlist":
		if head(len(s.allowlist.Prefixes), "[] # admits nobody") {
			for _, p := range s.allowlist.Prefixes {
				o.line(1, "- %s", text(p))
			}
		}
	case "allowlists":
		if head(len(s.allowlist.Lists), "{} # all go by that of callers; agents may come from everywhere") {
			for _, side := range sides {
				if list, ok := s.allowlist.Lists[side]; ok {
					o.line(1, "%s: %s", side, flow(list))
				}
			}
		}
	case "sign_in_policy":
		o.line(0, "sign_in_policy:")
		for _, l := range policyLines(s.signIn) {
			o.line(1, "%s", l)
		}
	}
}

// plain is a grant that a user's roles are short for.
func plain(g grant) bool {
	_, err := authz.ParseRole(g.Role)
	return err == nil && g.ToTeam == "" && g.Environment == "" && g.Project == "" && g.Connection == "" && g.Until.IsZero() && len(g.From) == 0
}

func plainRoles(s *state, user string) (roles []string) {
	for _, is := range s.grants {
		if g := grantOf(is); g.To == user && plain(g) && !slices.Contains(roles, g.Role) {
			roles = append(roles, g.Role)
		}
	}
	slices.Sort(roles)
	return roles
}

func (o *writer) connection(c client.Connection, b client.Budget) {
	o.line(1, "%s:", text(c.Name))
	o.line(2, "group: %s", text(c.Group))
	if c.Target != nil {
		o.line(2, "target: {host: %s, port: %d}", text(c.Target.Host), c.Target.Port)
	} else {
		o.line(2, "profile: %s", text(c.Profile))
	}
	o.line(2, "environment: %s", text(c.Environment))
	if c.Project != "" {
		o.line(2, "project: %s", text(c.Project))
	}
	if c.Folder != "" {
		o.line(2, "folder: %s", text(c.Folder))
	}
	if g := c.Gateway; g != nil {
		o.line(2, "gateway:")
		o.line(3, "address: %s", text(g.Address))
		o.line(3, "tls: %s", text(g.TLS))
		o.line(3, "allow: %s", flow(prefixesOf(g.Allow)))
		if g.ClientCA != "" {
			o.line(3, "client_ca: |")
			for l := range strings.SplitSeq(strings.TrimSpace(strings.ReplaceAll(g.ClientCA, "\r\n", "\n")), "\n") {
				o.line(4, "%s", l)
			}
		}
		if g.ProxyProtocol {
			o.line(3, "proxy_protocol: true")
		}
	}
	if b.Set != (client.Limits{}) {
		o.line(2, "budget: %s", budgetText(b.Set))
	}
}

func (o *writer) grant(g grant) {
	o.line(1, "- role: %s", text(g.Role))
	for _, f := range [][2]string{{"to", g.To}, {"to_team", g.ToTeam}, {"environment", g.Environment}, {"project", g.Project}, {"folder", g.Folder}, {"connection", g.Connection}} {
		if f[1] != "" {
			o.line(2, "%s: %s", f[0], text(f[1]))
		}
	}
	if !g.Until.IsZero() {
		o.line(2, "until: %s", g.Until.UTC().Format(time.RFC3339Nano))
	}
	if len(g.From) > 0 {
		o.line(2, "from: %s", flow(g.From))
	}
}

func budgetText(l client.Limits) string {
	var parts []string
	for _, f := range []struct {
		key string
		n   int64
	}{{"rate", l.Rate}, {"burst", l.Burst}, {"concurrent", l.Concurrent}} {
		if f.n != 0 {
			parts = append(parts, fmt.Sprintf("%s: %d", f.key, f.n))
		}
	}
	if l.Egress != 0 {
		parts = append(parts, "egress: "+config.Size(l.Egress).String())
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func prefixesOf(texts []string) []string {
	var list []netip.Prefix
	for _, s := range texts {
		if p, err := netip.ParsePrefix(s); err == nil {
			list = append(list, p)
		}
	}
	return sorted(list)
}
