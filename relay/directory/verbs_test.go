package directory_test

import (
	"slices"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// A one-time code and an address are as good as the verb by which they were given: who invites and may not edit users any more has given
// an invitation, and no code; and what a release gave that knew no verbs wants what it wanted then.
func TestACodeIsAsGoodAsTheVerbThatGaveIt(t *testing.T) {
	for what, c := range map[string]struct {
		holds               []authz.Action
		before              bool
		invitation, another bool // whether it is good
	}{
		"what invites":               {[]authz.Action{authz.UsersCreate}, false, true, false},
		"what edits":                 {[]authz.Action{authz.UsersEdit}, false, false, true},
		"what deletes":               {[]authz.Action{authz.UsersDelete}, false, false, false},
		"all three":                  {[]authz.Action{authz.UsersCreate, authz.UsersEdit, authz.UsersDelete}, false, true, true},
		"given before, the verbs":    {[]authz.Action{authz.UsersCreate, authz.UsersEdit, authz.UsersDelete}, true, false, false},
		"given before, what manages": {[]authz.Action{authz.UsersManage}, true, true, true},
	} {
		for _, invitation := range []bool{true, false} {
			t.Run(what+map[bool]string{true: ": an invitation", false: ": another code"}[invitation], func(t *testing.T) {
				h := newDesk(t)
				code, good := h.code, c.invitation
				if !invitation {
					var err error
					code, _, err = h.d.IssueCode(t.Context(), h.help, "default", h.anna.ID, 0)
					must(t, err)
					good = c.another
				}
				if c.before {
					must(t, directory.AsGivenBefore(t.Context(), h.d, h.person()))
				}
				_, err := h.d.UpdateRole(t.Context(), h.owner, "default", "desk", "desk", append(c.holds, authz.UsersRead))
				must(t, err)
				if h.d.Snapshot().Reachable(workspace(t, h.d, "default"), h.anna.ID) != c.invitation { // who invited her set the address
					t.Error("the address is reachable, or not")
				}
				if err := h.take(code); good {
					must(t, err)
				} else {
					h.void("the code", err)
				}
			})
		}
	}
}

// A role is kept by the fewest actions that make it: a release that knows no verbs reads it as it was.
func TestARoleIsKeptAsItWas(t *testing.T) {
	h := newDesk(t)
	w := workspace(t, h.d, "default")
	r, err := w.Role("desk")
	must(t, err)
	if !r.Set.Has(authz.UsersManage) || !r.Set.Has(authz.UsersCreate) || !r.Set.Has(authz.UsersEdit) || !r.Set.Has(authz.UsersDelete) || r.Set.Has(authz.RolesEdit) {
		t.Error("it holds", r.Set.Actions())
	}
	// Naming what it holds already changes nothing, and wants no more of who does it.
	r, err = h.d.UpdateRole(t.Context(), h.owner, "default", "desk", "desk", []authz.Action{authz.UsersManage, authz.UsersRead, authz.UsersEdit})
	must(t, err)
	if kept, err := directory.KeptOf(h.d, r); err != nil || !slices.Equal(kept, []authz.Action{authz.UsersRead, authz.UsersManage}) {
		t.Error(kept, err)
	}
}
