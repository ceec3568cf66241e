package authz_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
)

// Whoever compares grants to see whether something changed must see each change.
func TestGrantsAreEqualInEverythingOrNot(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	full := func() authz.Grant {
		g := authz.Grant{Until: at, From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Custom: authz.Analyst.Set()}
		for i := range reflect.TypeOf(g).NumField() {
			if f := reflect.ValueOf(&g).Elem().Field(i); f.Kind() == reflect.String {
				f.SetString("x")
			}
		}
		return g
	}
	same := full()
	same.Until = at.In(time.FixedZone("elsewhere", 3600))
	if !full().Equal(same) || !(authz.Grant{}).Equal(authz.Grant{}) {
		t.Error("equal grants differ")
	}
	for i := range reflect.TypeFor[authz.Grant]().NumField() {
		for _, base := range []func() authz.Grant{full, func() authz.Grant { return authz.Grant{} }} {
			a, b := base(), full()
			f := reflect.ValueOf(&b).Elem().Field(i)
			if base().ID == "" {
				b = authz.Grant{}
				f = reflect.ValueOf(&b).Elem().Field(i)
				f.Set(reflect.ValueOf(full()).Field(i))
			} else {
				f.SetZero()
			}
			if a.Equal(b) || b.Equal(a) {
				t.Errorf("a change of %s is not seen", reflect.TypeFor[authz.Grant]().Field(i).Name)
			}
		}
	}
}

// Roles are those on the whole workspace, each once, the widest first, custom ones by name behind them.
func TestRolesOfAPrincipal(t *testing.T) {
	var grants []authz.Grant
	give := func(role authz.Role, g authz.Grant) {
		g.ID, g.Workspace, g.Role = string(rune('a'+len(grants))), "w", role
		if !slices.Contains(authz.Roles, role) {
			g.Custom = authz.Analyst.Set()
		}
		grants = append(grants, g)
	}
	all := slices.Clone(authz.Roles)
	slices.Reverse(all)
	give("rol_b", authz.Grant{})
	give("rol_a", authz.Grant{})
	for _, r := range all[1:] { // all but the first, which is given on parts alone
		give(r, authz.Grant{})
		give(r, authz.Grant{Team: "t"})
	}
	give(all[0], authz.Grant{Environment: authz.Test})
	give(all[0], authz.Grant{Connection: "c"})
	want := append(slices.Clone(authz.Roles[:len(authz.Roles)-1]), "rol_a", "rol_b")
	for range 20 {
		if got := authz.NewPrincipal("p", "w", "n", authz.User, grants).Roles(); !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
		grants = append(grants[1:], grants[0]) // the order that they are given in is no matter
	}
	if (authz.Principal{}).Roles() != nil {
		t.Error("the zero value has roles")
	}
}

func TestNoRowIsNoPermission(t *testing.T) {
	if row, ok := authz.Find("connection.teleport"); ok || row.Action != "" {
		t.Errorf("%+v", row)
	}
	if row, ok := authz.Find(authz.Query); !ok || row.Action != authz.Query {
		t.Errorf("%+v", row)
	}
}
