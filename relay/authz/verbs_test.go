package authz_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

// managed is what manages each asset, with its parts, written down apart from the table.
var managed = map[Action][]Action{
	ConnectionsManage: {ConnectionsCreate, ConnectionsEdit, ConnectionsDelete},
	GatewaysManage:    {GatewaysEdit, GatewaysDelete},
	AgentsManage:      {AgentsEdit, AgentsDelete},
	GroupsManage:      {GroupsCreate, GroupsDelete},
	JoinTokensManage:  {JoinTokensCreate, JoinTokensDelete},
	BudgetsManage:     {BudgetsEdit},
	AllowlistManage:   {AllowlistEdit},
	TokensManage:      {TokensCreate, TokensDelete},
	RolesManage:       {RolesCreate, RolesEdit, RolesDelete},
	GrantsManage:      {GrantsCreate, GrantsDelete},
	TeamsManage:       {TeamsCreate, TeamsEdit, TeamsDelete},
	UsersManage:       {UsersCreate, UsersEdit, UsersDelete},
	SignInManage:      {SignInEdit},
	ServicesManage:    {ServicesCreate, ServicesEdit, ServicesDelete},
	DomainsManage:     {DomainsCreate, DomainsDelete},
	ProjectsManage:    {ProjectsCreate, ProjectsEdit, ProjectsDelete},
}

// everything is a scope that an action of any level may be about.
func everything(a Action) Scope {
	if row, _ := Find(a); row.Level == OnConnection {
		return con("con_1")
	}
	return Scope{Workspace: ws}
}

// J1: who may do one verb on an asset may do that, and none of the others; who manages it may do them all.
func TestAVerbIsHeldByItselfAlone(t *testing.T) {
	held := 0
	for _, row := range Actions {
		if row.Verb == Create || row.Verb == Edit || row.Verb == Destroy {
			held++
		}
		if row.Verb == Manage && row.Action != WorkspaceOwn && managed[row.Action] == nil {
			t.Errorf("%s has no parts", row.Action)
		}
	}
	for whole, list := range managed {
		held -= len(list)
		of, _ := Find(whole)
		for _, part := range list {
			t.Run(fmt.Sprintf("J1 %s", part), func(t *testing.T) {
				row, _ := Find(part)
				if row.Level != of.Level || row.Asset != of.Asset || !slices.Equal(RolesWith(part), RolesWith(whole)) || part.Dangerous() != whole.Dangerous() {
					t.Errorf("%+v is not as %+v", row, of)
				}
				if !strings.Contains(of.Guards, string(part)) {
					t.Errorf("%s does not name it: %s", whole, of.Guards)
				}
				alone, by := principal(Grant{Role: "rol_1", Custom: set(t, part)}), principal(Grant{Role: "rol_1", Custom: set(t, whole)})
				for _, other := range Actions {
					if got := Decide(alone, other.Action, everything(other.Action), here).Allow; got != (other.Action == part) {
						t.Errorf("it holds %s: %v", other.Action, got)
					}
					if got := Decide(by, other.Action, everything(other.Action), here).Allow; got != (other.Action == whole || slices.Contains(list, other.Action)) {
						t.Errorf("%s holds %s: %v", whole, other.Action, got)
					}
				}
			})
		}
		all := principal(Grant{Role: "rol_1", Custom: set(t, list...)})
		if Decide(all, whole, everything(whole), here).Allow {
			t.Errorf("who holds the parts of %s holds it", whole)
		}
	}
	if held != 0 {
		t.Errorf("%d verbs are part of nothing", held)
	}
}

// J4: who holds a verb gives that verb, and neither another nor what holds it.
func TestWhoHoldsAVerbGivesNoMore(t *testing.T) {
	on := Scope{Workspace: ws}
	for whole, list := range managed {
		give := func(may bool, of []Action, actions ...Action) {
			t.Helper()
			giver := principal(Grant{Role: "rol_1", Custom: set(t, append(slices.Clone(of), GrantsCreate)...)})
			if got := MayGive(giver, Grant{Role: "rol_2", Custom: set(t, actions...), Workspace: ws}, on, GrantsCreate, here); got != may {
				t.Errorf("J4 who holds %v gives %v: %v", of, actions, got)
			}
		}
		give(true, []Action{whole}, whole)
		give(true, []Action{whole}, list...)
		give(true, list, list...)
		if whole == GrantsManage { // which is held, or not, by the way that it is given
			continue
		}
		give(false, list, whole)
		for _, part := range list {
			give(true, []Action{whole}, part)
			give(true, []Action{part}, part)
			give(false, []Action{part}, whole)
			for _, other := range list {
				if other != part {
					give(false, []Action{part}, other)
				}
			}
		}
	}
	for _, via := range []Action{GrantsDelete, GrantsRead} {
		giver := principal(Grant{Role: "rol_1", Custom: set(t, via, Query)})
		if MayGive(giver, Grant{Role: "rol_2", Custom: set(t, Query), Workspace: ws}, on, GrantsCreate, here) {
			t.Errorf("J4 who holds %s gives", via)
		}
	}
}

// A token that is limited to what manages an asset may what it could; one that is limited to a verb may that alone.
func TestLimitsKnowVerbs(t *testing.T) {
	root := principal(Grant{Role: Owner})
	for whole, list := range managed {
		by := root.Limited(Limits{ByAction: true, Actions: set(t, whole)})
		for _, part := range list {
			if !Decide(by, part, everything(part), here).Allow {
				t.Errorf("a token limited to %s may not %s", whole, part)
			}
			alone := root.Limited(Limits{ByAction: true, Actions: set(t, part)})
			for _, row := range Actions {
				if got := Decide(alone, row.Action, everything(row.Action), here).Allow; got != (row.Action == part) {
					t.Errorf("a token limited to %s may %s: %v", part, row.Action, got)
				}
			}
			if MayGive(root.Limited(Limits{ByAction: true, Actions: set(t, part, GrantsCreate)}), Grant{Role: "rol_1", Custom: set(t, whole), Workspace: ws}, Scope{Workspace: ws}, GrantsCreate, here) && whole != GrantsManage {
				t.Errorf("J4 a token limited to %s gives %s", part, whole)
			}
		}
	}
}

// Against a model that goes by names alone: a set holds what was named and the parts of what was, and no more. The fewest actions that it
// is told by make the same set again, and are among those named.
func TestASetHoldsWhatWasNamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var named []Action
		for _, row := range rapid.SliceOfN(rapid.SampledFrom(Actions), 0, 12).Draw(t, "rows") {
			if row.Action != WorkspaceOwn {
				named = append(named, row.Action)
			}
		}
		s, err := NewSet(named...)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range Actions {
			asset, verb, _ := strings.Cut(string(row.Action), ".")
			want := slices.Contains(named, row.Action) || slices.Contains([]string{"create", "edit", "delete"}, verb) && slices.Contains(named, Action(asset+".manage"))
			if s.Has(row.Action) != want || slices.Contains(s.Actions(), row.Action) != want {
				t.Fatalf("%v holds %s: %v", named, row.Action, !want)
			}
		}
		least := s.Least()
		if again, err := NewSet(least...); err != nil || again != s {
			t.Fatalf("%v is told by %v", named, least)
		}
		for i, a := range least {
			if fewer, _ := NewSet(slices.Delete(slices.Clone(least), i, i+1)...); fewer == s || !slices.Contains(named, a) {
				t.Fatalf("%v is told by %v: %s is too much", named, least, a)
			}
		}
	})
}
