package authz_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

// shapes of 10,000 grants, with the scope and place that is dearest to decide.
func shapes() map[string][]Grant {
	m := map[string][]Grant{}
	for i := range 10_000 {
		id := fmt.Sprint("gra_", i)
		net := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24+i%9).Masked()
		m["connections"] = append(m["connections"], Grant{ID: id, Role: Roles[2+i%2], Workspace: ws, Connection: fmt.Sprint("con_", i)})
		m["folders"] = append(m["folders"], Grant{ID: id, Role: Roles[2+i%2], Workspace: ws, Environment: Environments[(i+2)%3], Project: fmt.Sprint("prj_", i%100), Folder: fmt.Sprint("fol_", i)})
		m["ends"] = append(m["ends"], Grant{ID: id, Role: Roles[2+i%2], Workspace: ws, Until: now.Add(time.Duration(i-5000) * time.Minute)})
		m["networks"] = append(m["networks"], Grant{ID: id, Role: Roles[2+i%2], Workspace: ws, From: []netip.Prefix{net}})
		m["networks and ends"] = append(m["networks and ends"], Grant{ID: id, Role: Roles[2+i%2], Workspace: ws, From: []netip.Prefix{net}, Until: now.Add(time.Duration(i-5000) * time.Minute)})
	}
	return m
}

// deep is a folder as far down as there are any; a grant is on the last.
const deep = "fol_a/fol_b/fol_c/fol_d/fol_e/fol_f/fol_g/fol_9999"

// However many grants there are, what a decision looks at is bounded by the table.
func TestADecisionDoesNotGrowWithItsGrants(t *testing.T) {
	for name, gs := range shapes() {
		if n := LongestList(NewPrincipal("usr_1", ws, "p", User, gs)); n > len(Actions) {
			t.Errorf("%s: a list of %d", name, n)
		}
	}
}

func BenchmarkDecide10000Grants(b *testing.B) {
	for name, gs := range shapes() {
		p := NewPrincipal("usr_1", ws, "p", User, gs)
		for what, source := range map[string]string{"": "10.39.15.0", ", nothing fits": "192.0.2.1"} {
			b.Run(name+what, func(b *testing.B) {
				s, at, n := Scope{Workspace: ws, Environment: Production, Project: "prj_99", Folder: deep, Connection: "con_9999"}, At{now, netip.MustParseAddr(source)}, 0
				action := Query
				if what != "" {
					action = TokensManage // held by none
				}
				b.ReportAllocs()
				for b.Loop() {
					if Decide(p, action, s, at).Allow {
						n++
					}
				}
				if (n > 0) != (what == "") {
					b.Fatal("decided otherwise")
				}
			})
		}
	}
}

func BenchmarkDecideDeny(b *testing.B) {
	p := principal(Grant{Role: Analyst})
	b.ReportAllocs()
	for b.Loop() {
		if Decide(p, Exec, con("con_1"), here).Allow {
			b.Fatal("allowed")
		}
	}
}
