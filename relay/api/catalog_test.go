package api_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/authz"
)

// catalog are the rows of the threat model about the relay's edge (4.E), people (4.F) and rights (4.J). Numbers that are missing were
// never given out.
var catalog = []string{
	"E1", "E2", "E3", "E4", "E6", "E7", "E8", "E10", "E11", "E12", "E13", "E15", "E16", "E17", "E18", "E20", "E21", "E22", "E23",
	"F1", "F2", "F3", "F4", "F6", "F7", "F8", "F10", "F11", "F12", "F13", "F15", "F16", "F17", "F18",
	"J1", "J2", "J3", "J4", "J6", "J8", "J9", "J10", "J11", "J12", "J13", "J15",
}

// shownBy names the tests of each row; each has a subtest whose name begins with the row's id, or with several ids of which it is one.
var shownBy = map[string][]string{
	"E1":  {"relay/api TestCallersAddress"},
	"E2":  {"relay/api TestCallersAddress"},
	"E3":  {"relay TestBadRelayYAMLIsToldWhere"},
	"E4":  {"relay/api TestCallersAddress"},
	"E6":  {"relay/api TestCallersAddress", "relay/directory TestAllowlist", "relay/authz TestLimitsOfAGrant"},
	"E7":  {"relay/authn TestDelayGrowsAndIsForgotten", "internal/tunnel TestHandshakesOfASiteShareOneLimit"},
	"E8":  {"relay/api TestPeopleAndTokensHaveListsOfTheirOwn", "internal/e2e TestAgentsOffTheirAllowlistAreCut", "internal/e2e TestRevocationReachesStalledCallers"},
	"E10": {"relay/api TestNoNameIsServedAnotherWay"},
	"E11": {"internal/e2e TestSmuggledRequestsAreNotServed"},
	"E12": {"relay/api TestPathTricks", "internal/e2e TestForeignPathsAreRefused"},
	"E13": {"internal/e2e TestSlowCallersAreCut", "internal/e2e TestUploadThatTricklesIsCutOnTheWay", "relay/api TestUploadThatTricklesIsCut"},
	"E15": {"relay/api TestBodiesAreBoundedAndStrict"},
	"E16": {"relay/api TestBodiesAreBoundedAndStrict"},
	"E17": {"relay/api TestHeadersAndOneTruthAboutTheRequest"},
	"E18": {"relay/api TestTheRelayRedirectsNobody"},
	"E20": {"relay/api TestHeadersAndOneTruthAboutTheRequest"},
	"E21": {"relay/api TestHeadersAndOneTruthAboutTheRequest"},
	"E22": {"relay/api TestHeadersAndOneTruthAboutTheRequest"},
	"E23": {"relay/api TestHeadersAndOneTruthAboutTheRequest", "relay/api TestCookieCountsOnlyFromOwnPages"},
	"F1":  {"relay/api TestSignInTellsNobodyWhoIsThere", "relay/authn TestUnknownUserTakesAsLongAndSaysTheSame", "relay/api TestF1TimingTellsNobodyWhoIsThere"}, // the last by make timing
	"F2":  {"relay/authn TestVariantsOfANameAreOneAccount"},
	"F3":  {"relay/authn TestLockOutCannotBeTurnedAgainstTheUser"},
	"F4":  {"relay/password TestNormalForm"},
	"F6":  {"relay/authn TestCodeCountsOnce", "relay/totp TestCodeCountsWithinOneStepAndOnce"},
	"F7":  {"relay/authn TestCodesCannotBeGuessed"},
	"F8":  {"relay/api TestDemandedSecondFactorHoldsEverywhere", "relay/api TestPeoplesOwnTokens", "relay/directory TestPersonalTokens"},
	"F10": {"relay/totp TestCodeCountsWithinOneStepAndOnce"},
	"F11": {"relay/api TestEveryRouteThatWantsAFreshProofIsRefusedWithoutOne", "relay/api TestDangerousActsWantAFreshProof", "relay/api TestDemandedSecondFactorHoldsEverywhere"},
	"F12": {"relay/api TestSessionHasANewTextAtEachStep", "relay/api TestCookieCountsOnlyFromOwnPages"},
	"F13": {"relay/api TestSessionHasANewTextAtEachStep", "relay/api TestSignInRoutes", "relay/authn TestOneTimeCodeCountsOnce"},
	"F15": {"relay/authn TestOneTimeCodeCountsOnce", "relay/api TestSignInRoutes"},
	"F16": {"relay/api TestEveryRouteThatWantsAFreshProofIsRefusedWithoutOne", "relay/api TestDangerousActsWantAFreshProof"},
	"F17": {"relay/api TestPeoplesOwnTokens", "relay/api TestProgramsTokensGoWithTheirAccount", "relay/api TestPersonOfTwoWorkspaces", "relay/directory TestWhoIsRemovedAtHomeIsRemovedEverywhere", "relay/authn TestAllRefusalsAreTheSame", "relay/vault TestVerifier"},
	"F18": {"relay/authn TestOneTimeCodeCountsOnce"},
	"J1":  {"relay/api TestMatrixOfForeignThings", "relay/api TestMatrixOfRoutesRolesWorkspacesAndTokens", "relay/api TestMatrixOfRoutesAndSessions", "relay/api TestLimitedTokenOnEveryRoute", "relay/authz TestRoleMatrix"},
	"J2":  {"relay/api TestTheBodyNamesNothingElseThanThePath"},
	"J3":  {"relay/api TestBodiesAreBoundedAndStrict", "relay/directory TestTokens"},
	"J4":  {"relay/authz TestNobodyGrantsAboveTheirOwn", "relay/api TestNobodyTakesOverWhoHoldsMore", "relay/directory TestJ4TheLastWhoCanAdministerStays", "relay/directory TestGivingIsJudgedByTheNewestState", "relay/directory TestPlacesAreChangedByWhatIsHeldWhenItIsWritten", "relay/api TestPartOfTheWorkspaceLeadsNoConnectionToAnotherSite"},
	"J6":  {"relay/api TestNoRouteHasATwin"},
	"J8":  {"internal/e2e TestGrantThatEndsCutsOpenStreams", "internal/e2e TestRevokedTokenIsCutAtOnce"},
	"J9":  {"relay/api TestMatrixOfForeignThings", "relay/api TestMatrixOfRoutesRolesWorkspacesAndTokens", "relay/api TestWhatOneMayNotSeeAnswersAsWhatIsNotThere"},
	"J10": {"relay/directory TestIDs"},
	"J11": {"relay/api TestNoCellOfAnAnswerIsAFormula", "internal/cli TestCleanStripsControlCharacters", "relay/cmd/fairlead TestQueryFormats", "relay/directory TestGroupsAndConnections"},
	"J13": {"relay/directory TestNothingIsLeftOfWhoIsRemoved", "relay/api TestPersonOfTwoWorkspaces"},
	"J15": {"relay/api TestOwnSessionsAreOnesOwn", "relay/api TestPeoplesOwnTokens", "relay/api TestCursorsCountInTheirOwnListAlone"},
}

// notShown are the rows that there is nothing to show of, with the reason.
var notShown = map[string]string{
	"J12": "nobody acts as somebody else: there is no such mode",
}

// deviates are the rows whose result is another than the catalogue's, with the reason; docs/security.md says the same.
var deviates = map[string]string{
	"E22": "a Host that is nobody's is served, not answered by 421: it selects nothing, and one that is a workspace's own domain admits that workspace alone",
	"F10": "the relay raises no alarm for its own clock: the system's time service does, and a code counts one step either way",
}

// names finds a subtest of a row in the text of a test: t.Run or refusal with the row's id at the beginning of the name, or a table
// whose rows are run.
func names(id, body string) bool {
	body = regexp.MustCompile(`(?m)^\s*//.*$`).ReplaceAllString(body, "") // a comment shows nothing
	begins := `"(?:[A-Z]\d+ )*` + id + `[ "]`
	return regexp.MustCompile(`\.(?:Run|refusal)\((?:fmt\.Sprintf\()?`+begins).MatchString(body) ||
		strings.Contains(body, ".Run(") && regexp.MustCompile(`\{`+begins+`|`+begins+`[^"\n]*":`).MatchString(body)
}

// bodyOf is a test's text, with that of the function of the same name in small letters that is its only subtest. What runs in a bubble
// has no subtests, so it is not the test's.
func bodyOf(text, name string) string {
	of := func(name string) string {
		start := regexp.MustCompile(`(?m)^func ` + name + `\(t `).FindStringIndex(text)
		if start == nil {
			return ""
		}
		body, _, _ := strings.Cut(text[start[0]:], "\n}\n")
		return body
	}
	body, inner := of(name), "t"+strings.TrimPrefix(name, "T")
	if strings.Contains(body, ", "+inner+")") && !strings.Contains(body, "synctest.Test(") {
		body += of(inner)
	}
	return body
}

// Each row has a test that exists and a subtest that is called after it, or a reason.
func TestEveryRowOfPeopleAndRightsIsAccountedFor(t *testing.T) {
	text := map[string]string{} // of the tests of each package
	for _, id := range catalog {
		if (len(shownBy[id]) == 0) == (notShown[id] == "") {
			t.Errorf("%s must stand in exactly one of shownBy and notShown", id)
		}
		for _, test := range shownBy[id] {
			pkg, name, _ := strings.Cut(test, " ")
			if text[pkg] == "" {
				text[pkg] = testsOf(t, pkg)
			}
			switch body := bodyOf(text[pkg], name); {
			case body == "" || !strings.HasPrefix(name, "Test"):
				t.Errorf("%s: %s does not exist", id, test)
			case !names(id, body):
				t.Errorf("%s: %s has no subtest of that name", id, test)
			}
		}
	}
	for id := range shownBy {
		if !slices.Contains(catalog, id) {
			t.Errorf("%s is no row", id)
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "security.md"))
	must(t, err)
	for id, why := range deviates {
		if len(shownBy[id]) == 0 || why == "" || !strings.Contains(string(page), "("+id+")") {
			t.Errorf("%s: what is done instead must be shown, and told in docs/security.md", id)
		}
	}
	// The rule itself: a comment, a text and another row name nothing.
	for body, want := range map[string]bool{
		`t.Run("E1 x", f)`: true, `g.refusal("E1 x", a)`: true, `t.Run(fmt.Sprintf("E1 %q", s))`: true, `t.Run("E7 E1 x", f)`: true, `{"E1 x", f} t.Run(c.name, f)`: true,
		`"E1 x": f, t.Run(name, f)`: true, `t.Run("E1", f)`: true, "\t// t.Run(\"E1 x\")": false, `t.Errorf("E1 x")`: false, `t.Run("E12 x", f)`: false, `{"E1 x", f}`: false, `t.Run("x E1", f)`: false,
	} {
		if names("E1", body) != want {
			t.Errorf("%s: counts: %v, want %v", body, !want, want)
		}
	}
}

func testsOf(t *testing.T, pkg string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", pkg, err)
	}
	var b strings.Builder
	for _, f := range files {
		if filepath.Base(f) == "catalog_test.go" && pkg != "relay/api" {
			continue
		}
		one, err := os.ReadFile(f)
		must(t, err)
		b.WriteString("\n" + string(one))
	}
	return b.String()
}

// J6: no path is served twice, by whatever its parameters are called, and none differs from another by case or a slash.
func TestNoRouteHasATwin(t *testing.T) { t.Run("J6 no route has a twin", testNoRouteHasATwin) }

func testNoRouteHasATwin(t *testing.T) {
	g := newRig(t)
	param := regexp.MustCompile(`\{[^}]*\}`)
	seen := map[string]string{}
	for _, r := range g.api.Routes() {
		key := r.Method + " " + strings.ToLower(strings.TrimSuffix(param.ReplaceAllString(r.Path, "{}"), "/"))
		if was, ok := seen[key]; ok {
			t.Errorf("%s %s and %s are twins", r.Method, r.Path, was)
		}
		seen[key] = r.Path
	}
	if len(seen) < 50 {
		t.Errorf("only %d routes", len(seen))
	}
}

// E18: nothing that a caller sends makes the relay send anybody anywhere.
func TestTheRelayRedirectsNobody(t *testing.T) {
	t.Run("E18 nothing redirects", testTheRelayRedirectsNobody)
}

func testTheRelayRedirectsNobody(t *testing.T) {
	g := newRig(t)
	for _, r := range g.api.Routes() {
		path := fill(r.Path, "default", g.conn)
		for _, tail := range []string{"?next=//evil.example", "?next=https:evil.example&redirect_uri=%2F%5Cevil.example", "?return_to=%0d%0aLocation:%20https://evil.example", "/", "//evil.example/"} {
			for _, token := range []string{"", g.token[authz.Analyst]} {
				a := g.ask(r.Method, path+tail, token, "")
				if a.status >= 300 && a.status < 400 && a.status != http.StatusNotModified || a.header.Get("Location") != "" || a.header.Get("Refresh") != "" {
					t.Errorf("E18 %s %s%s: %d to %q", r.Method, path, tail, a.status, a.header.Get("Location"))
				}
			}
		}
	}
}

// E10: a name that is asked for, in TLS or in HTTP, opens nothing: the same request gets the same answer under each, also on a conn
// that was opened for another, for no host is a workspace's.
func TestNoNameIsServedAnotherWay(t *testing.T) {
	t.Run("E10 one conn under several names", testNoNameIsServedAnotherWay)
}

func testNoNameIsServedAnotherWay(t *testing.T) {
	g := newRig(t)
	own, other := g.token[authz.Analyst], g.foreign
	for _, host := range []string{"relay.example", "other.example", "default", "other"} {
		named := func(r *http.Request) { r.Host, r.URL.Host = host, host }
		for token, path := range map[string]string{own: "/workspaces/other/connections", other: "/workspaces/default/connections"} {
			if a := g.ask("GET", path, token, "", named); a.status != http.StatusNotFound {
				t.Errorf("E10 %s under %s: %d", path, host, a.status)
			}
		}
	}
}

// J2: a body cannot name another thing, workspace or giver than the path and the token do.
func TestTheBodyNamesNothingElseThanThePath(t *testing.T) {
	t.Run("J2 the body names nothing else than the path", testTheBodyNamesNothingElseThanThePath)
}

func testTheBodyNamesNothingElseThanThePath(t *testing.T) {
	g := newRig(t)
	admin := g.token[authz.Admin]
	g.get("POST", "/workspaces/default/roles", admin, `{"name":"reader","actions":["connection.query"]}`, nil)
	for _, c := range [][3]string{
		{"PUT", "/roles/reader", `{"id":"rol_x","name":"reader","actions":["connection.query"]}`}, {"PUT", "/roles/reader", `{"workspace":"other","name":"reader","actions":["connection.query"]}`},
		{"PUT", "/connections/" + g.conn + "/budget", `{"connection":"other","concurrent":1}`}, {"PUT", "/budget", `{"workspace":"other"}`}, {"PUT", "/sign-in-policy", `{"workspace":"other"}`},
		{"PUT", "/allowlist", `{"workspace":"other","prefixes":["192.0.2.0/24"]}`}, {"PUT", "/connections/" + g.conn + "/gateway", `{"id":"gw_x","address":"127.0.0.1:1"}`},
		{"POST", "/grants", `{"role":"analyst","principal":"a analyst","workspace":"other"}`}, {"POST", "/service-accounts", `{"name":"x","id":"usr_x"}`}, {"POST", "/tokens", `{"name":"x","roles":["analyst"],"token":"flt_x"}`},
	} {
		if a := g.ask(c[0], "/workspaces/default"+c[1], admin, c[2]); a.status != http.StatusBadRequest {
			t.Errorf("J2 %s %s %s: %d %s", c[0], c[1], c[2], a.status, a.body)
		}
	}
}
