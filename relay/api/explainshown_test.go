package api_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// J1: an explanation tells a part's admin nothing that they could not read by other routes: not the rights that others hold elsewhere, not
// the allowlists, not who is disabled, not what custom roles hold. It says what is not shown, whether or not there is any of it.
func TestExplainTellsNoMoreThanTheAskerMayRead(t *testing.T) {
	g := newRig(t)
	g.projects()
	for _, name := range []string{"holds", "lacks", "off", "here"} {
		g.nobody(name)
	}
	inner := g.nobody("inner")
	g.makes([2]string{"roles", `{"name":"secret","actions":["connection.query"]}`})
	g.give(`{"role":"admin","principal":"inner","project":"sales","folder":"reports"}`)
	g.give(`{"role":"operator","principal":"holds"}`)
	g.give(`{"role":"operator","principal":"holds","environment":"production"}`)
	g.give(`{"role":"secret","principal":"holds","project":"sales"}`)
	g.give(`{"role":"analyst","principal":"here","project":"sales","folder":"reports/monthly"}`)
	off, err := g.now().FindPrincipal("off")
	must(t, err)
	must(t, g.dir.SetPrincipalDisabled(context.Background(), "default", off.ID, true))
	explain := func(token, who, more string) (e client.Explanation) {
		t.Helper()
		g.get("GET", "/workspaces/default/explain?action=query&connection=orders&principal="+who+more, token, "", &e)
		return e
	}
	// without is an explanation but for whom and which address it was asked about.
	without := func(e client.Explanation) string {
		e.Principal, e.PrincipalName, e.SourceAddress, e.Time = "", "", "", time.Time{}
		b, err := json.Marshal(e)
		must(t, err)
		return string(b)
	}
	none := explain(inner, "lacks", "")
	for what, e := range map[string]client.Explanation{"who holds it on the workspace, an environment and the project": explain(inner, "holds", ""), "who is disabled": explain(inner, "off", ""),
		"an address off the allowlist": explain(inner, "lacks", "&source=203.0.113.9")} {
		if without(e) != without(none) {
			t.Errorf("J1 %s is told of:\n%s\n%s", what, without(e), without(none))
		}
	}
	shown := []string{"grants on what you may not look into: you lack grants.read on the workspace", "whether the account is disabled: you lack service_accounts.read on the workspace",
		"the allowlists: you lack allowlist.read on the workspace", "custom roles that hold the action: you lack roles.read on the workspace"}
	if none.Allow || none.Allowlisted != nil || none.Reason != "no grant that you may look into allows connection.query" || slices.Contains(none.Roles, "secret") || !slices.Equal(none.NotShown, shown) {
		t.Errorf("%+v", none)
	}
	// Of their own part they learn, and of themselves.
	if e := explain(inner, "here", ""); !e.Allow || e.Grant == nil || e.Grant.Role != "analyst" || len(e.NotShown) != 3 {
		t.Errorf("a grant in the folder: %+v", e)
	}
	if e := explain(inner, "inner", ""); !e.Allow || e.Grant == nil || slices.ContainsFunc(e.NotShown, func(s string) bool { return strings.Contains(s, "disabled") }) {
		t.Errorf("oneself: %+v", e)
	}
	// Who may read all is told all.
	admin := g.token[authz.Admin]
	if e := explain(admin, "holds", ""); !e.Allow || !*e.Allowlisted || e.NotShown != nil || e.Grant == nil {
		t.Errorf("%+v", e)
	}
	if e := explain(admin, "lacks", "&source=203.0.113.9"); e.Allow || *e.Allowlisted || !slices.Contains(e.Roles, "secret") || e.NotShown != nil {
		t.Errorf("%+v", e)
	}
	if e := explain(admin, "off", ""); !e.Disabled {
		t.Errorf("%+v", e)
	}
}
