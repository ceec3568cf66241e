package protocol

import (
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// spec is SPEC.md, cut into the sections that its headings make.
func spec(t *testing.T) (whole string, section func(heading string) string) {
	t.Helper()
	b, err := os.ReadFile("SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	whole = strings.ReplaceAll(string(b), "\r\n", "\n")
	return whole, func(heading string) string {
		_, rest, ok := strings.Cut(whole, "\n"+heading+"\n")
		if !ok {
			t.Fatalf("SPEC.md has no heading %q", heading)
		}
		body, _, _ := strings.Cut(rest, "\n#")
		return body
	}
}

// rows gives the cells of the first table whose head begins with the named column.
func rows(t *testing.T, text, column string) [][]string {
	t.Helper()
	_, rest, ok := strings.Cut("\n"+text, "\n| "+column+" |")
	if !ok {
		t.Fatalf("there is no table with the column %q", column)
	}
	var out [][]string
	for _, line := range strings.Split(rest, "\n")[2:] { // the head's rest and the rule below it
		if !strings.HasPrefix(line, "|") {
			break
		}
		var cells []string
		for _, c := range strings.Split(strings.Trim(line, "|"), "|") {
			cells = append(cells, strings.TrimSpace(c))
		}
		out = append(out, cells)
	}
	if len(out) == 0 {
		t.Fatalf("the table with the column %q is empty", column)
	}
	return out
}

func bare(cell string) string { return strings.Trim(cell, "`") }

func TestSpecListsTheCodes(t *testing.T) {
	_, section := spec(t)
	var got []string
	for _, r := range rows(t, section("## 9. Errors"), "code") {
		c := Code(bare(r[0]))
		got = append(got, string(c))
		if r[1] != strconv.Itoa(c.Status()) || r[2] != strconv.Itoa(c.ExitCode()) {
			t.Errorf("SPEC.md gives %s status %s and exit status %s; the code has %d and %d", c, r[1], r[2], c.Status(), c.ExitCode())
		}
	}
	var want []string
	for _, c := range Codes {
		want = append(want, string(c))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("SPEC.md lists the codes %v\nthe code has %v", got, want)
	}
}

func TestSpecListsTheOperations(t *testing.T) {
	_, section := spec(t)
	listed := map[Operation]bool{}
	for _, r := range rows(t, section("## 7. Operations"), "operation") {
		op := Operation(bare(r[0]))
		listed[op] = true
		form, ok := forms[op]
		if !ok {
			t.Errorf("SPEC.md lists the operation %q, which does not exist", op)
			continue
		}
		var kinds []string
		for _, k := range form.kinds {
			kinds = append(kinds, string(k))
		}
		if r[1] != strings.Join(kinds, ", ") || r[2] != form.method {
			t.Errorf("SPEC.md gives %s kinds %q and method %s; the code has %v and %s", op, r[1], r[2], kinds, form.method)
		}
		var takes []string
		for _, p := range strings.Fields(r[3]) {
			takes = append(takes, bare(p))
		}
		checkTakes(t, op, takes)
	}
	for op := range forms {
		if !listed[op] {
			t.Errorf("SPEC.md does not list the operation %s", op)
		}
	}
}

// values are a lawful one for each parameter.
var values = map[string]string{
	"path": "a/b", "to": "c", "overwrite": "true", "recursive": "true", "glob": "*.csv", "cursor": "x", "page_size": "10",
	"upload": strings.Repeat("ab", 16), "offset": "5", "partial": "true", "method": "GET", "target": "/x", "host": "db.corp", "port": "5432",
}

// checkTakes asks the parser about every parameter there is: those listed are taken, all others refused.
func checkTakes(t *testing.T, op Operation, listed []string) {
	t.Helper()
	for name, value := range values {
		r := &Request{Operation: op}
		err := r.parseParams(name + "=" + url.QueryEscape(value))
		if err != nil {
			t.Fatalf("%s=%s: %v", name, value, err)
		}
		err = r.checkParams()
		refused := err != nil && strings.Contains(err.Error(), "does not take parameter")
		if want := !slices.Contains(listed, name); refused != want {
			t.Errorf("%s: parameter %s refused: %v; SPEC.md says %v", op, name, refused, want)
		}
	}
	for _, name := range listed {
		if values[name] == "" {
			t.Errorf("%s: SPEC.md lists parameter %q, which this test does not know", op, name)
		}
	}
}

func TestSpecExplainsTheParameters(t *testing.T) {
	_, section := spec(t)
	var got []string
	for _, r := range rows(t, section("## 7. Operations"), "parameter") {
		for _, name := range strings.Split(r[0], ", ") {
			got = append(got, bare(name))
		}
	}
	var want []string
	for name := range values {
		want = append(want, name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("SPEC.md explains %v, want %v", got, want)
	}
	if err := new(Request).parseParams("surprise=1"); AsError(err).Code != CodeUnsupported {
		t.Errorf("an unknown parameter gives %v", err)
	}
}

func TestSpecListsTheHeaders(t *testing.T) {
	_, section := spec(t)
	table := map[string]bool{}
	for _, r := range rows(t, section("### Headers"), "header") {
		table[bare(r[0])] = true
	}
	want := []string{HeaderRequestID, HeaderDeadline, HeaderRequire, HeaderPrincipal, HeaderConnection, HeaderLimits, HeaderProxy, HeaderRule, HeaderOrigin, HeaderNotBegun, TrailerOutcome}
	for _, h := range want {
		if !table[h] {
			t.Errorf("SPEC.md does not list the header %s", h)
		}
	}
	if len(table) != len(want) {
		t.Errorf("SPEC.md lists %d headers, the code has %d", len(table), len(want))
	}
	// A header constant that the list above forgot would make this test blind.
	src, err := os.ReadFile("request.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(src), `= "Fairlead-`); n != len(want)+1 { // and the prefix itself
		t.Errorf("request.go defines %d names that begin with Fairlead-, this test knows %d", n, len(want)+1)
	}
	constraints := map[string]bool{}
	for _, r := range rows(t, section("### Headers"), "constraint") {
		constraints[bare(r[0])] = true
	}
	if fmt.Sprint(constraints) != fmt.Sprint(Constraints) {
		t.Errorf("SPEC.md lists the constraints %v, the code has %v", constraints, Constraints)
	}
}

func TestSpecListsPathsNoticesAndLimits(t *testing.T) {
	whole, section := spec(t)
	paths := map[string]bool{}
	for _, r := range rows(t, section("## 6. Control requests"), "path") {
		paths[bare(r[0])] = true
	}
	want := []string{PathHello, PathRenew, PathEvents, PathStatus, PathDrain, PathEnroll, PathNotice, PathLanes}
	for _, p := range want {
		if !paths[p] {
			t.Errorf("SPEC.md does not list the path %s", p)
		}
	}
	if len(paths) != len(want) {
		t.Errorf("SPEC.md lists %d paths, the code has %d", len(paths), len(want))
	}
	notices := map[string]bool{}
	for _, r := range rows(t, section("### Notices"), "kind") {
		notices[bare(r[0])] = true
	}
	if len(notices) != 3 || !notices[NoticeDrain] || !notices[NoticeRevoked] || !notices[NoticeRenew] {
		t.Errorf("SPEC.md lists the notices %v", notices)
	}
	limits := map[string]string{}
	for _, r := range rows(t, section("## 10. Limits"), "what") {
		limits[r[0]] = r[1]
	}
	for what, n := range map[string]int{
		"one parameter, target or header value": MaxParamBytes, "all parameters together": 4 * MaxParamBytes, "a JSON body of a database operation": MaxBodyBytes,
		"a control body": MaxControlBytes, "a profile's name": MaxProfile,
	} {
		if limits[what] != fmt.Sprintf("%d bytes", n) {
			t.Errorf("SPEC.md says of %q: %q; the code has %d", what, limits[what], n)
		}
	}
	if limits["records in an EventBatch"] != strconv.Itoa(MaxEventBatch) {
		t.Errorf("SPEC.md allows %q records in a batch, the code %d", limits["records in an EventBatch"], MaxEventBatch)
	}
	for _, s := range []string{
		"`" + ALPNTunnel + "`", "`" + ALPNLane + "`", "`" + ALPNEnroll + "`", "`Upgrade: " + UpgradeDial + "`", "`" + ContentNDJSON + "`",
		fmt.Sprintf("protocol between agent and relay, version %d", Version),
	} {
		if !strings.Contains(whole, s) {
			t.Errorf("SPEC.md does not hold %q", s)
		}
	}
}
