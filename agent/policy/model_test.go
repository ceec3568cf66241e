package policy_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// The reference model: what the YAML means, said as plainly as can be. Effective right = YAML ∩ relay.

func modelAllows(c policy.Config, op policy.Operation) bool {
	r := op.Request
	if r.Limits.ReadOnly && r.Writes() {
		return false
	}
	switch r.Kind {
	case protocol.KindFiles:
		f, ok := c.Files[r.Profile]
		verb := string(r.Operation)
		has := slices.Contains(f.Allow, verb) || verb == "stat" && (slices.Contains(f.Allow, "list") || slices.Contains(f.Allow, "read"))
		return ok && has && modelMatch(f.Match, r.Path, verb)
	case protocol.KindDatabase:
		d, ok := c.Database[r.Profile]
		if !ok || modelDenied(c.Deny, d.Host, d.Port) {
			return false
		}
		writes := slices.ContainsFunc(op.Statements, func(s protocol.Statement) bool { return !strings.HasPrefix(s.SQL, "select") })
		switch r.Operation {
		case protocol.OpDial:
			return d.Dial
		case protocol.OpQuery, protocol.OpSchema:
			return !writes
		default:
			return d.Mode == "read_write"
		}
	default:
		if modelDenied(c.Deny, r.Host, r.Port) {
			return false
		}
		for _, d := range c.Database {
			if d.Host == r.Host && d.Port == r.Port && !d.Dial {
				return false
			}
		}
		return slices.ContainsFunc(c.Allow, func(t policy.Target) bool { return modelCovers(t, r.Host, r.Port) })
	}
}

func modelDenied(deny []policy.Target, host string, port uint16) bool {
	return slices.ContainsFunc(deny, func(t policy.Target) bool {
		return (len(t.Ports) == 0 || t.Ports.Contains(port)) && modelHost(t, host)
	})
}

func modelCovers(t policy.Target, host string, port uint16) bool {
	return t.Ports.Contains(port) && modelHost(t, host)
}

func modelHost(t policy.Target, host string) bool {
	if t.CIDR != "" {
		a, err := netip.ParseAddr(host)
		return err == nil && netip.MustParsePrefix(t.CIDR).Contains(a)
	}
	want, got := strings.Split(t.Host, "."), strings.Split(host, ".")
	return len(want) == len(got) && !slices.ContainsFunc(want, func(s string) bool { return s != "*" && !slices.Contains(got, s) }) && (want[0] == "*" || want[0] == got[0]) && want[1] == got[1]
}

func modelMatch(globs []string, path, verb string) bool {
	if len(globs) == 0 {
		return path != "" || verb == "list" || verb == "stat"
	}
	return slices.ContainsFunc(globs, func(g string) bool { // of the three that are drawn
		file := g == "*" && path != "" && !strings.Contains(path, "/") || g == "a/*" && strings.HasPrefix(path, "a/") || g == "**" && path != ""
		folder := g == "**" || path == "" || g == "a/*" && path == "a"
		return file || folder && (verb == "list" || verb == "stat" || verb == "mkdir" && path != "")
	})
}

// What is drawn: a small world in which everything meets.

var (
	hosts  = []string{"db.corp", "web.corp", "db.lan", "10.1.0.1", "10.2.0.1"}
	rules  = []string{"*.corp", "db.corp", "*.lan"}
	cidrs  = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32"}
	ports3 = []uint16{1, 2, 3}
	verbs  = []string{"list", "read", "write", "delete", "mkdir"}
	globs  = []string{"*", "a/*", "**"}
	paths  = []string{"", "a", "b", "a/b", "c/d"}
)

func pick[T any](t *rapid.T, from []T) T { return rapid.SampledFrom(from).Draw(t, "pick") }

func some[T comparable](t *rapid.T, from []T) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, len(from), rapid.ID[T]).Draw(t, "some")
}

func drawTarget(t *rapid.T, deny bool) policy.Target {
	p := some(t, ports3)
	if len(p) == 0 && !deny {
		p = ports3[:1]
	}
	if rapid.Bool().Draw(t, "cidr") {
		return policy.Target{CIDR: pick(t, cidrs), Ports: ports(p...)}
	}
	return policy.Target{Host: pick(t, rules), Ports: ports(p...)}
}

func drawConfig(t *rapid.T) policy.Config {
	c := policy.Config{Files: map[string]policy.Files{}, Database: map[string]policy.Database{}}
	for range rapid.IntRange(0, 3).Draw(t, "allows") {
		c.Allow = append(c.Allow, drawTarget(t, false))
	}
	for range rapid.IntRange(0, 2).Draw(t, "denies") {
		c.Deny = append(c.Deny, drawTarget(t, true))
	}
	for _, name := range some(t, []string{"x", "y"}) {
		c.Files[name] = policy.Files{Allow: some(t, verbs), Match: some(t, globs), MaxSize: int64(rapid.IntRange(0, 9).Draw(t, "size"))}
		c.Database[name] = policy.Database{Adapter: "postgresql", Host: pick(t, hosts), Port: pick(t, ports3), Mode: pick(t, []string{"read_only", "read_write"}),
			Dial: rapid.Bool().Draw(t, "dial"), MaxRows: int64(rapid.IntRange(0, 9).Draw(t, "rows")), Mask: policy.Mask{Columns: some(t, []string{"p", "q"})}}
	}
	return c
}

func drawOperation(t *rapid.T) policy.Operation {
	r := &protocol.Request{Profile: pick(t, []string{"x", "y", "z"}), Limits: protocol.Limits{ReadOnly: rapid.Bool().Draw(t, "ro"), MaxRows: int64(rapid.IntRange(0, 9).Draw(t, "cap")), MaskColumns: some(t, []string{"q", "r"})}}
	op := policy.Operation{Request: r}
	switch rapid.IntRange(0, 2).Draw(t, "kind") {
	case 0:
		r.Kind, r.Operation, r.Path = protocol.KindFiles, protocol.Operation(pick(t, append(verbs, "stat"))), pick(t, paths)
	case 1:
		r.Kind, r.Operation = protocol.KindDatabase, pick(t, []protocol.Operation{"query", "exec", "schema", "dial"})
		if r.Operation == "query" || r.Operation == "exec" {
			op.Statements = []protocol.Statement{{SQL: pick(t, []string{"select 1", "update t set a = 1"})}}
		}
	default:
		r.Kind, r.Operation, r.Profile, r.Host, r.Port = protocol.KindTCP, protocol.OpDial, protocol.NoProfile, pick(t, hosts), pick(t, ports3)
	}
	return op
}

func TestDecideAgreesWithModel(t *testing.T) {
	allowed := 0
	rapid.Check(t, func(t *rapid.T) {
		c, op := drawConfig(t), drawOperation(t)
		p := mustCompile(t, c)
		d := p.Decide(op)
		if want := modelAllows(c, op); d.Allow != want {
			t.Fatalf("%+v\non %+v: got %+v, the model says %v", *op.Request, c, d, want)
		}
		if !d.Allow {
			return
		}
		allowed++
		site := c.Database[op.Request.Profile]
		if rows, relay := d.Limits.MaxRows, op.Request.Limits.MaxRows; op.Request.Kind == protocol.KindDatabase && op.Request.Operation != protocol.OpDial {
			if relay != 0 && (rows == 0 || rows > relay) || site.MaxRows != 0 && (rows == 0 || rows > site.MaxRows) || rows != 0 && rows != relay && rows != site.MaxRows {
				t.Fatalf("rows %d of site %d and relay %d", rows, site.MaxRows, relay)
			}
			for _, col := range []string{"p", "q", "r"} {
				if want := slices.Contains(site.Mask.Columns, col) || slices.Contains(op.Request.Limits.MaskColumns, col); d.Mask.Column(col) != want {
					t.Fatalf("column %s: masked %v", col, !want)
				}
			}
		}
	})
	if allowed == 0 {
		t.Error("nothing was ever allowed: the test proves nothing")
	}
}

// TestNarrowingIsMonotone: taking an allow away, or adding a deny, or adding limits, never allows more; deny wins in any
// order.
func TestNarrowingIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, op := drawConfig(t), drawOperation(t)
		before := mustCompile(t, c).Decide(op).Allow
		narrower := c
		switch rapid.IntRange(0, 3).Draw(t, "how") {
		case 0:
			if len(c.Allow) == 0 {
				return
			}
			i := rapid.IntRange(0, len(c.Allow)-1).Draw(t, "i")
			narrower.Allow = slices.Delete(slices.Clone(c.Allow), i, i+1)
		case 1:
			narrower.Deny = slices.Insert(slices.Clone(c.Deny), rapid.IntRange(0, len(c.Deny)).Draw(t, "i"), drawTarget(t, true))
		case 2:
			f, ok := c.Files["x"]
			if !ok || len(f.Allow) == 0 {
				return
			}
			f.Allow = f.Allow[1:]
			narrower.Files = map[string]policy.Files{"x": f, "y": c.Files["y"]}
			if _, ok := c.Files["y"]; !ok {
				delete(narrower.Files, "y")
			}
		default:
			r := *op.Request
			r.Limits = protocol.Limits{ReadOnly: true, MaxRows: 1, MaskColumns: []string{"p"}}
			op.Request = &r
		}
		if after := mustCompile(t, narrower).Decide(op).Allow; after && !before {
			t.Fatalf("%+v is allowed by the narrower %+v, not by %+v", *op.Request, narrower, c)
		}
		slices.Reverse(narrower.Deny)
		slices.Reverse(narrower.Allow)
		a := mustCompile(t, narrower).Decide(op).Allow
		slices.Reverse(narrower.Deny)
		slices.Reverse(narrower.Allow)
		if a != mustCompile(t, narrower).Decide(op).Allow {
			t.Fatal("the order of entries decides")
		}
	})
}

func mustCompile(t *rapid.T, c policy.Config) *policy.Policy {
	p, faults := policy.New(c)
	if faults != nil {
		t.Fatal(faults)
	}
	return p
}
