package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/protocol"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == completeCommand { // the completion test runs this binary as the program
		os.Exit(Run(testProgram(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

type testGrammar struct {
	Relay string `help:"Address of the relay." placeholder:"URL"`

	List   testList   `cmd:"" help:"List things."`
	Fail   testFail   `cmd:"" help:"Fail in a given way."`
	Nested testNested `cmd:"" help:"Commands below a command."`
}

func (*testGrammar) Examples() []string { return []string{"demo list"} }

type testList struct {
	Output
	File string `type:"path" help:"A file."`
	Fast bool   `help:"Be fast."`
	Name string `arg:"" optional:"" help:"Which one."`
}

func (*testList) Examples() []string {
	return []string{"# everything, for a program", "demo list --output json"}
}

func (c *testList) Run(t *Term, word boundWord) error {
	if c.JSON() {
		return t.JSON([]string{string(word)})
	}
	return t.Table([]string{"name"}, [][]string{{string(word)}})
}

type boundWord string

type testFail struct {
	Output
	How string `arg:"" enum:"denied,local,missing,canceled,silent,config"`
}

func (c *testFail) Run(ctx context.Context) error {
	switch c.How {
	case "denied":
		return fmt.Errorf("query sales: %w", &protocol.Error{
			Code: protocol.CodeDenied, Message: "the statement writes\x1b[2J", Origin: protocol.OriginAgent,
			Rule: "database.sales.allow.mode", Hint: "ask the site for mode read_write", Detail: "42501", RequestID: "req_1",
			Cause: errors.New("inner secret"),
		})
	case "local":
		return errors.New("something broke\nsecond line")
	case "missing":
		return fmt.Errorf("open x: %w", fs.ErrNotExist)
	case "canceled":
		return fmt.Errorf("wait: %w", context.Canceled)
	case "silent":
		return &ExitError{Status: 3}
	}
	return &ExitError{Status: ExitConfig, Err: errors.New("agent.yaml:3:1: unknown key")}
}

type testNested struct {
	Deep struct {
		Output
	} `cmd:"" help:"The deep one."`
	Other struct{} `cmd:"" help:"Another."`
}

func testProgram() Program {
	return Program{
		Name: "demo", Description: "A program for tests.", Grammar: &testGrammar{}, Bind: []any{boundWord("wörd")}, Version: "v1.2.3",
	}
}

func runTest(t *testing.T, args ...string) (status int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	status = Run(testProgram(), args, strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != strings.ReplaceAll(string(want), "\r\n", "\n") {
		t.Errorf("%s differs; got:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestHelp(t *testing.T) {
	t.Setenv("COLUMNS", "100")
	for name, args := range map[string][]string{
		"help": {"--help"}, "help-list": {"list", "--help"}, "help-nested": {"nested", "--help"}, "help-completion": {"completion", "--help"},
	} {
		status, out, errs := runTest(t, args...)
		if status != 0 || errs != "" {
			t.Errorf("%v: status %d, stderr %q", args, status, errs)
		}
		golden(t, name, out)
	}
}

func TestNothingGivenShowsHelpAndFails(t *testing.T) {
	status, out, errs := runTest(t)
	if status != 64 || out != "" || !strings.Contains(errs, "Usage: demo <command>") {
		t.Errorf("status %d, stdout %q, stderr %q", status, out, errs)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"lsit"}, []string{`did you mean "list"`, `demo --help`}},
		{[]string{"list", "--outptu", "json"}, []string{`did you mean "--output"`, `demo list --help`}},
		{[]string{"list", "--output", "xml"}, []string{"table", "json", "xml"}},
		{[]string{"nested"}, []string{"expected one of", "deep"}},
		{[]string{"list", "a", "b"}, []string{"unexpected argument b"}},
	} {
		status, out, errs := runTest(t, c.args...)
		if status != 64 || out != "" {
			t.Errorf("%v: status %d, stdout %q", c.args, status, out)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: no %q in %q", c.args, want, errs)
			}
		}
	}
}

func TestErrorBlock(t *testing.T) {
	status, _, errs := runTest(t, "fail", "denied")
	want := `demo: query sales: the statement writes\x1b[2J
  refused by:  the agent at the site
  rule:        database.sales.allow.mode
  target code: 42501
  hint:        ask the site for mode read_write
  request id:  req_1
`
	if status != 77 || errs != want {
		t.Errorf("status %d, got:\n%swant:\n%s", status, errs, want)
	}
	if status, _, errs = runTest(t, "fail", "local"); status != 1 || errs != "demo: something broke\n  second line\n" {
		t.Errorf("local: %d %q", status, errs)
	}
	for how, want := range map[string]int{"missing": 66, "canceled": 130, "silent": 3, "config": 78} {
		status, _, errs := runTest(t, "fail", how)
		if status != want {
			t.Errorf("%s: status %d, want %d", how, status, want)
		}
		if (errs == "") != (how == "silent") {
			t.Errorf("%s: stderr %q", how, errs)
		}
	}
}

func TestErrorJSON(t *testing.T) {
	for _, args := range [][]string{{"fail", "denied", "--output", "json"}, {"fail", "denied", "--output=json"}, {"fail", "denied", "-o", "json"}, {"fail", "-ojson", "denied"}} {
		status, _, errs := runTest(t, args...)
		var got struct {
			Error struct {
				Code, Message, Origin, Rule, Hint, Detail string
				RequestID                                 string `json:"request_id"`
				ExitStatus                                int    `json:"exit_status"`
			}
		}
		if err := json.Unmarshal([]byte(errs), &got); err != nil {
			t.Fatalf("%v: %v: %q", args, err, errs)
		}
		e := got.Error
		if status != 77 || e.ExitStatus != 77 || e.Code != "denied" || e.Origin != "agent" || e.Rule != "database.sales.allow.mode" ||
			e.RequestID != "req_1" || e.Detail != "42501" || e.Hint == "" || !strings.HasPrefix(e.Message, "query sales: ") {
			t.Errorf("%v: %+v", args, e)
		}
		if strings.Contains(errs, "inner secret") {
			t.Errorf("the cause is printed: %s", errs)
		}
	}
	status, _, errs := runTest(t, "list", "--output", "json", "--bogus")
	if status != 64 || !json.Valid([]byte(errs)) {
		t.Errorf("a parser's error is not JSON: %d %q", status, errs)
	}
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for _, c := range protocol.Codes {
		if got, want := ExitStatus(fmt.Errorf("x: %w", protocol.Errorf(c, "m"))), c.ExitCode(); got != want {
			t.Errorf("%s: %d, want %d", c, got, want)
		}
	}
}

func TestBoundValueAndOutput(t *testing.T) {
	if status, out, errs := runTest(t, "list"); status != 0 || out != "NAME\nwörd\n" {
		t.Errorf("%d %q %q", status, out, errs)
	}
	if status, out, errs := runTest(t, "list", "-o", "json"); status != 0 || out != "[\n  \"wörd\"\n]\n" {
		t.Errorf("%d %q %q", status, out, errs)
	}
}

func TestVersion(t *testing.T) {
	status, out, _ := runTest(t, "version")
	if status != 0 || !strings.HasPrefix(out, "demo v1.2.3\n") || !strings.Contains(out, "go1.") {
		t.Errorf("%d %q", status, out)
	}
	_, out, _ = runTest(t, "version", "--output", "json")
	var b BuildInfo
	if err := json.Unmarshal([]byte(out), &b); err != nil || b.Version != "v1.2.3" || b.Protocol != protocol.Version {
		t.Errorf("%v %+v", err, b)
	}
}

func TestReadSecret(t *testing.T) {
	in := strings.NewReader("  s3cret \nrest")
	term := &Term{In: in, Out: os.Stdout, Err: os.Stderr}
	s, err := term.ReadSecret("token")
	if err != nil || s.ExposeString() != "s3cret" {
		t.Fatalf("%v %q", err, s.ExposeString())
	}
	if in.Len() != len("rest") {
		t.Errorf("%d bytes left: what stands after the line belongs to the command", in.Len())
	}
	for what, text := range map[string]string{"empty": "", "blank": " \n", "long": strings.Repeat("x", MaxSecret+2)} {
		if _, err := (&Term{In: strings.NewReader(text)}).ReadSecret("token"); ExitStatus(err) != 64 {
			t.Errorf("%s: %v", what, err)
		}
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("abc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err = term.ReadSecretFile(file, "token"); err != nil || s.ExposeString() != "abc" {
		t.Errorf("%v %q", err, s.ExposeString())
	}
	if _, err = term.ReadSecretFile(file+".no", "token"); ExitStatus(err) != 66 {
		t.Errorf("%v", err)
	}
}
