//go:build linux

package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// What a person gets wrong first: files that are not there, that others may change, or that are not in order. Each ends
// with the status that docs/exit-codes.md promises, says what and where, and leaves nothing behind.
func TestBadInputEndsWithItsDocumentedStatus(t *testing.T) {
	agent, relay := program(t, "fairlead-agent"), program(t, "fairlead-relay")
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		return p
	}
	good := write("good.yaml", "version: 1\n", 0o600)
	bad := write("bad.yaml", "version: 1\ndatabse: {}\n", 0o600)
	open := write("open.yaml", "version: 1\n", 0o666)
	token := write("there.token", "x\n", 0o600)
	none := filepath.Join(dir, "none")
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		program string
		args    []string
		status  int
		want    string
	}{
		{agent, []string{"check", "--config", none}, 66, none},
		{agent, []string{"check", "--config", bad}, 78, bad + `:2:1: databse: unknown key "databse"; did you mean "database"?`},
		{agent, []string{"check", "--config", open}, 78, "chmod go-w " + open},
		{agent, []string{"explain", "--config", bad, "tcp", "a.corp:1"}, 78, "did you mean"},
		{agent, []string{"run", "--config", none, "--data", empty}, 66, none},
		{agent, []string{"run", "--config", good, "--data", none}, 66, none},
		{agent, []string{"run", "--config", bad, "--data", empty}, 78, "did you mean"},
		{agent, []string{"run", "--config", good, "--data", empty}, 78, "not enrolled"},
		{agent, []string{"enroll", "--data", none, "--token-file", filepath.Join(dir, "no.token")}, 66, "no.token"},
		{agent, []string{"enroll", "--data", none, "--token-file", token}, 64, "begins with flj_"},
		{relay, []string{"serve", "--data", none}, 66, none},
		{relay, []string{"serve", "--config", none}, 66, none},
		{relay, []string{"check", "--config", bad}, 78, bad + ":2:1: databse"},
		{relay, []string{"check", "--config", open}, 78, "chmod go-w " + open},
		{relay, []string{"serve", "--config", bad}, 78, bad + ":2:1: databse"},
		{relay, []string{"init", "--data", none, "--listen", "nonsense"}, 64, `"nonsense"`},
		{relay, []string{"init", "--data", none, "--public-address", "nonsense"}, 64, "public_address"},
		{relay, []string{"init", "--data", none, "--allow", "10.0.0.1/8"}, 64, "did you mean 10.0.0.0/8"},
		{relay, []string{"init", "--data", none, "--token-file", token}, 73, "is not replaced"},
	} {
		out := runProgram(t, nil, "", c.program, c.args...)
		if out.Exit != c.status || !strings.Contains(out.Err, c.want) {
			t.Errorf("%s %v: want status %d and %q, got %s", filepath.Base(c.program), c.args, c.status, c.want, out)
		}
		if _, err := os.Stat(none); err == nil {
			t.Fatalf("%s %v: left a folder behind", filepath.Base(c.program), c.args)
		}
	}
	if out := runProgram(t, nil, "", relay, "init", "--data", none, "--public-address", "localhost:1"); out.Exit != 0 {
		t.Fatal(out)
	}
	if out := runProgram(t, nil, "", relay, "init", "--data", none); out.Exit != 73 || !strings.Contains(out.Err, "exists already") {
		t.Errorf("init twice: %s", out)
	}
}

// Every command that --help lists has a --help of its own with examples, and each example names a program of ours.
func TestEveryCommandShowsExamples(t *testing.T) {
	listed := regexp.MustCompile(`(?m)^  ([a-z][a-z-]*(?: [a-z][a-z-]*)?)  +[A-Z]`)
	for _, name := range []string{"fairlead-agent", "fairlead-relay", "fairlead"} {
		bin := program(t, name)
		help := runProgram(t, nil, "", bin, "--help")
		_, commands, _ := strings.Cut(help.Out, "\nCommands:\n")
		found := listed.FindAllStringSubmatch(commands, -1)
		if help.Exit != 0 || len(found) < 8 {
			t.Fatalf("%s: %d commands in %s", name, len(found), help)
		}
		for _, m := range found {
			out := runProgram(t, nil, "", bin, append(strings.Fields(m[1]), "--help")...)
			_, examples, _ := strings.Cut(out.Out, "\nExamples:\n")
			if out.Exit != 0 || !strings.Contains(examples, "fairlead") || strings.Contains(examples, "{program}") {
				t.Errorf("%s %s --help: exit %d, examples %q", name, m[1], out.Exit, examples)
			}
		}
	}
}
