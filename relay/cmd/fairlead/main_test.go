package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

var update = flag.Bool("update", false, "rewrite golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// home gives the test a configuration folder of its own and a clean environment.
func home(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(name, dir)
	}
	for _, name := range []string{"FAIRLEAD_RELAY", "FAIRLEAD_TOKEN", "FAIRLEAD_TOKEN_FILE", "FAIRLEAD_CA", "FAIRLEAD_WORKSPACE", "FAIRLEAD_PROXY"} {
		t.Setenv(name, "") // so that it is put back after the test
		_ = os.Unsetenv(name)
	}
	t.Setenv("COLUMNS", "100")
}

// setup gives a relay that the environment points to.
func setup(t *testing.T) *clienttest.Relay {
	t.Helper()
	home(t)
	r := clienttest.New(t)
	t.Setenv("FAIRLEAD_RELAY", r.Host)
	t.Setenv("FAIRLEAD_TOKEN", clienttest.Token)
	t.Setenv("FAIRLEAD_CA", r.CAFile)
	return r
}

type result struct {
	status    int
	out, errs string
}

func runIn(stdin io.Reader, args ...string) result {
	var out, errs bytes.Buffer
	status := cli.Run(program(), args, stdin, &out, &errs)
	return result{status, out.String(), errs.String()}
}

func run(args ...string) result { return runIn(strings.NewReader(""), args...) }

// want checks status and that the outputs hold the texts; "" means that the output is empty.
func (r result) want(t *testing.T, status int, out, errs string) {
	t.Helper()
	fits := func(got, want string) bool { return strings.Contains(got, want) && (want != "" || got == "") }
	if r.status != status || !fits(r.out, out) || !fits(r.errs, errs) {
		t.Errorf("want status %d, stdout with %q, stderr with %q; got %d\nstdout: %s\nstderr: %s", status, out, errs, r.status, r.out, r.errs)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
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
		t.Errorf("%s differs (rewrite it with -update); got:\n%s", path, got)
	}
}

// Every command, its help in one golden file; each has an example, and each example parses.
func TestHelp(t *testing.T) {
	home(t)
	k, err := kong.New(&grammar{}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "help.txt", run("--help").out)
	var all strings.Builder
	for _, leaf := range k.Model.Leaves(true) {
		var path []string
		for n := leaf; n.Parent != nil; n = n.Parent {
			path = append([]string{n.Name}, path...)
		}
		r := run(append(path, "--help")...)
		if r.status != 0 || r.errs != "" {
			t.Errorf("%v: %+v", path, r)
		}
		_, examples, ok := strings.Cut(r.out, "\nExamples:\n")
		if !ok {
			t.Errorf("fairlead %s: no example", strings.Join(path, " "))
		}
		for line := range strings.Lines(examples) {
			if strings.Contains(line, "fairlead "+strings.Join(path, " ")) && !strings.HasPrefix(strings.TrimSpace(line), "#") {
				parses(t, line)
			}
		}
		all.WriteString("$ fairlead " + strings.Join(path, " ") + " --help\n" + r.out + "\n")
	}
	golden(t, "commands.txt", all.String())
}

// parses takes the fairlead part of an example through the parser.
func parses(t *testing.T, line string) {
	t.Helper()
	if _, piped, ok := strings.Cut(line, " | fairlead "); ok {
		line = "fairlead " + piped
	}
	_, line, _ = strings.Cut(line, "fairlead ")
	line, _, _ = strings.Cut(line, " | ")
	line, _, _ = strings.Cut(line, " > ")
	var words []string
	var word strings.Builder
	quote := rune(0)
	for _, c := range strings.TrimSpace(line) + " " {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote == 0 && c == ' ':
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteRune(c)
		}
	}
	if strings.Contains(line, "ProxyCommand") || strings.HasSuffix(words[len(words)-1], "user@bastion") {
		return
	}
	k, err := kong.New(&grammar{}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Parse(words); err != nil {
		t.Errorf("example %q: %v", line, err)
	}
}

func TestNoRelay(t *testing.T) {
	home(t)
	run("agents", "list").want(t, 64, "", "no relay is named")
	t.Setenv("FAIRLEAD_RELAY", "127.0.0.1:1")
	run("agents", "list").want(t, 77, "", "no API token")
	t.Setenv("FAIRLEAD_TOKEN", "flt_x")
	run("agents", "list").want(t, 69, "", "nothing listens there")
	t.Setenv("FAIRLEAD_CA", filepath.Join(t.TempDir(), "none.pem"))
	run("agents", "list").want(t, 66, "", "read CA")
	run("agents", "lsit").want(t, 64, "", `did you mean "list"`)
	run("agent").want(t, 64, "", `did you mean "agents"`)
}

func TestTokenFromFlagStdinAndEnvironment(t *testing.T) {
	r := setup(t)
	t.Setenv("FAIRLEAD_TOKEN", "flt_wrong")
	res := run("whoami")
	res.want(t, 77, "", "no valid API token was given")
	if !strings.Contains(res.errs, "said by:     the relay") || !strings.Contains(res.errs, "hint:        fairlead login") || !strings.Contains(res.errs, "request id:  req_test") {
		t.Errorf("%s", res.errs)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(clienttest.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run("whoami", "--token-file", file).want(t, 0, "127.0.0.1", "")
	runIn(strings.NewReader(clienttest.Token+"\n"), "whoami", "--token-file", "-").want(t, 0, "tok_1", "")
	t.Setenv("FAIRLEAD_TOKEN_FILE", file)
	run("whoami", "--output", "json").want(t, 0, `"source_address": "127.0.0.1"`, "")
	run("whoami", "--workspace", "other", "--relay", r.URL).want(t, 0, "tok_1", "")
}

func TestLogin(t *testing.T) {
	home(t)
	r := clienttest.New(t)
	runIn(strings.NewReader("x"), "login").want(t, 64, "", "--relay HOST:PORT")
	runIn(strings.NewReader(""), "login", "--relay", r.Host, "--ca", r.CAFile).want(t, 64, "", "API token is empty")
	runIn(strings.NewReader("flt_wrong\n"), "login", "--relay", r.Host, "--ca", r.CAFile).want(t, 77, "", "log in: no valid API token")
	runIn(strings.NewReader(clienttest.Token), "login", "--relay", r.Host).want(t, 77, "", "CA that is not trusted")
	path, err := loginFile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a login that failed was saved")
	}
	runIn(strings.NewReader(clienttest.Token+"\n"), "login", "--relay", r.Host, "--ca", r.CAFile).want(t, 0, "", "logged in to "+r.URL+" as admin")
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Fatal(info, err)
	}
	_ = os.Remove(r.CAFile) // the CA itself is saved
	run("whoami").want(t, 0, "tok_1", "")

	// The saved token goes to the saved relay and to no other.
	other := clienttest.New(t)
	run("whoami", "--relay", other.Host, "--ca", other.CAFile).want(t, 77, "", "no API token for "+other.Host)
	if other.Requested("") != 0 {
		t.Error("the token went to another relay")
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		run("whoami").want(t, 77, "", "chmod 600")
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	run("whoami").want(t, 64, "", "is damaged")
	run("logout").want(t, 0, "", "forgotten")
	run("logout").want(t, 0, "", "no saved login")
	run("whoami").want(t, 64, "", "no relay is named")
}

func TestAgents(t *testing.T) {
	r := setup(t)
	res := run("agents", "list")
	res.want(t, 0, `evil\x1b[2Jname`, "") // J11
	for _, text := range []string{"STATE", "active", "awaiting setup", "v1.0.0", "2026-11-21 12:00:00Z", "192.0.2.7", "0123456789ab", "unknown key"} {
		if !strings.Contains(res.out, text) {
			t.Errorf("no %q in %s", text, res.out)
		}
	}
	var agents []map[string]any
	if err := json.Unmarshal([]byte(run("agents", "list", "--output", "json").out), &agents); err != nil || len(agents) != 2 || agents[0]["state"] != "active" {
		t.Errorf("%v %v", agents, err)
	}
	run("agents", "show", "plant").want(t, 0, "postgresql", "")
	run("agents", "show", "agt_1", "--output", "json").want(t, 0, `"certificate_not_after"`, "")
	run("agents", "show", "nobody").want(t, 66, "", "there is no agent")
	run("agents", "disable", "plant").want(t, 0, "", "agent plant (agt_1) is disabled")
	run("agents", "list").want(t, 0, "disabled", "")
	run("agents", "enable", "agt_1").want(t, 0, "", "is enabled")
	r.Agents = append(r.Agents, r.Agents[0])
	run("agents", "remove", "plant").want(t, 64, "", "name it by its id")
	r.Agents = r.Agents[:2]
	run("agents", "remove", "plant").want(t, 0, "", "is removed")
	run("agents", "remove", "agt_1").want(t, 66, "", "no such agent")
	res = run("agents", "show", "agt_9", "--output", "json")
	res.want(t, 66, "", `"code":"not_found"`)
	if !json.Valid([]byte(res.errs)) {
		t.Errorf("%s", res.errs)
	}
	r.Agents = nil
	run("agents", "list", "-o", "json").want(t, 0, "[]", "")
}

func TestGroups(t *testing.T) {
	setup(t)
	run("groups", "list").want(t, 0, "default", "")
	run("groups", "create", "north").want(t, 0, "", "group north (grp_2) is made")
	run("groups", "create", "north").want(t, 73, "", "a group of this name exists")
	run("groups", "delete", "north").want(t, 0, "", "is deleted")
	run("groups", "delete", "north").want(t, 66, "", "no such group")
	run("groups", "create").want(t, 64, "", "expected \"<name>\"")
}

func TestJoinToken(t *testing.T) {
	r := setup(t)
	res := run("join-token", "create", "--group", "default")
	res.want(t, 0, "flj_sample\n", "2026-11-21 13:00:00Z")
	if res.out != "flj_sample\n" {
		t.Errorf("more than the token on standard output: %q", res.out)
	}
	run("join-token", "create", "--group", "default", "--expires", "7d", "-o", "json").want(t, 0, `"expires_at": "2026-11-28T12:00:00Z"`, "")
	if body := r.LastBody(); body != `{"group":"default","expires_in_seconds":604800}` {
		t.Errorf("%s", body)
	}
	for _, bad := range []string{"x", "0s", "-1h", "100000d", "d", "5"} {
		run("join-token", "create", "--group", "g", "--expires="+bad).want(t, 64, "", "lifetime")
	}
	run("join-token", "create").want(t, 64, "", "--group")
	run("join-token", "list").want(t, 0, "in_1", "")
	run("join-token", "revoke", "in_1").want(t, 0, "", "revoked")
	run("join-token", "revoke", "in_1").want(t, 66, "", "no such join token")
}

func TestConnections(t *testing.T) {
	r := setup(t)
	run("connections", "list").want(t, 0, "profile sales", "")
	run("connections", "show", "sales").want(t, 0, "postgresql", "")
	run("connections", "show", "x").want(t, 66, "", "no such connection")
	run("connections", "create", "erp", "--group", "default", "--target", "erp.corp:3200").want(t, 0, "", "connection erp (con_2) is made")
	if body := r.LastBody(); body != `{"name":"erp","group":"default","target":{"host":"erp.corp","port":3200}}` {
		t.Errorf("%s", body)
	}
	run("connections", "list").want(t, 0, "erp.corp:3200", "")
	run("connections", "create", "typo", "--group", "default", "--profile", "saels").want(t, 0, "", "no connected agent of group default offers profile saels")
	run("connections", "delete", "typo", "--yes").want(t, 0, "", "is deleted")
	run("connections", "create", "a", "--group", "g").want(t, 64, "", "either --profile PROFILE or --target HOST:PORT")
	run("connections", "create", "a", "--group", "g", "--profile", "p", "--target", "h:1").want(t, 64, "", "either --profile")
	for _, bad := range []string{"host", "host:0", "host:99999", ":5", "h:x"} {
		run("connections", "create", "a", "--group", "g", "--target", bad).want(t, 64, "", "want HOST:PORT")
	}
	run("connections", "create", "hr", "--group", "default", "--profile", "hr", "-o", "json").want(t, 0, `"profile": "hr"`, "")
	run("connections", "delete", "erp").want(t, 0, "", "is deleted")
	run("connections", "delete", "erp").want(t, 66, "", "no such connection")
}

func TestTokensAndAllowlist(t *testing.T) {
	r := setup(t)
	res := run("tokens", "create", "report", "--role", "analyst", "--role", "operator", "--expires", "90d")
	res.want(t, 0, "flt_sample\n", "valid until 2027-02-19")
	if res.out != "flt_sample\n" || r.LastBody() != `{"name":"report","roles":["analyst","operator"],"expires_in_seconds":7776000}` {
		t.Errorf("%q %s", res.out, r.LastBody())
	}
	run("tokens", "create", "x").want(t, 64, "", "--role")
	run("tokens", "create", "x", "--role", "admin", "--mine").want(t, 64, "", "one of --role")
	run("tokens", "create", "x", "--role", "admin", "--for", "nightly").want(t, 64, "", "one of --role")
	run("tokens", "create", "x", "--mine", "--connection", "sales").want(t, 64, "", "--only-connection")
	run("tokens", "create", "x", "--mine", "--only-environment", "staging").want(t, 64, "", "development")
	run("tokens", "create", "laptop", "--mine", "--only-from", "192.0.2.0/24", "--only-action", "agents.read", "--only-environment", "test").want(t, 0, "flt_own", "laptop")
	run("tokens", "list", "--mine").want(t, 0, "agents.read,test,192.0.2.0/24", "")
	run("tokens", "list", "--mine").want(t, 0, "192.0.2.7", "")
	run("tokens", "revoke", "tok_own", "--mine").want(t, 0, "", "is revoked")
	run("tokens", "revoke", "tok_own", "--mine").want(t, 66, "", "no such token")
	run("tokens", "create", "one", "--for", "nightly", "--only-connection", "sales", "-o", "json").want(t, 0, `"sales"`, "")
	run("quota").want(t, 0, "no bound", "")
	run("domains", "add", "data.example.com").want(t, 0, "", "until ")
	run("domains", "list").want(t, 0, "data.example.com", "")
	run("domains", "remove", "data.example.com").want(t, 0, "", "no longer")
	run("domains", "remove", "data.example.com").want(t, 66, "", "no such domain")
	run("service-accounts", "create", "nightly", "--role", "analyst").want(t, 0, "", "tokens create NAME --for usr_3")
	run("service-accounts", "list").want(t, 0, "nightly", "")
	run("service-accounts", "disable", "nightly").want(t, 0, "", "is disabled")
	run("service-accounts", "list").want(t, 0, "disabled", "")
	run("service-accounts", "enable", "nightly").want(t, 0, "", "is enabled")
	run("service-accounts", "delete", "nightly").want(t, 0, "", "is deleted")
	run("service-accounts", "delete", "nightly").want(t, 66, "", "no such service account")
	run("tokens", "create", "x", "--role", "admin").want(t, 0, "flt_sample", "valid until it is revoked")
	run("tokens", "create", "x", "--role", "analyst", "--connection", "sales").want(t, 0, "flt_sample", "valid until")
	if body := r.LastBody(); body != `{"name":"x","roles":["analyst"],"connections":["sales"]}` {
		t.Error(body)
	}
	run("tokens", "list").want(t, 0, "analyst,operator", "")
	run("tokens", "revoke", "tok_2").want(t, 0, "", "is revoked")
	run("tokens", "revoke", "tok_2").want(t, 66, "", "no such token")

	run("allowlist", "show").want(t, 0, "127.0.0.0/8\n", "")
	run("allowlist", "set", "192.0.2.0/24").want(t, 73, "", "shut you out")
	dry := run("allowlist", "set", "--dry-run", "192.0.2.0/24")
	dry.want(t, 0, `session    ses_1  evil\x1b[2Jname  127.0.0.9`+"\n", "your own address would be shut out")
	dry.want(t, 0, "token      tok_1  admin            127.0.0.1\n", "and 7 tokens more")
	dry.want(t, 0, "agent      agt_1  plant", "nothing was changed")
	dry.want(t, 0, "WOULD CUT", "gateway ports")
	if body := r.LastBody(); body != `{"prefixes":["192.0.2.0/24"],"dry_run":true}` {
		t.Error(body)
	}
	run("allowlist", "set", "--dry-run", "192.0.2.0/24", "-o", "json").want(t, 0, `"would_cut": {`, "nothing was changed")
	if res := run("allowlist", "set", "--dry-run", "--for", "people", "127.0.0.0/8"); res.status != 0 || strings.Count(res.out, "\n") != 1 || strings.Contains(res.errs, "shut out") || strings.Contains(res.errs, "gateway") {
		t.Errorf("nobody would be cut: %+v", res)
	}
	run("allowlist", "set", "--dry-run").want(t, 64, "", "--none")
	run("allowlist", "show").want(t, 0, "127.0.0.0/8\n", "")
	run("allowlist", "set", "192.0.2.0/24", "127.0.0.0/8").want(t, 0, "192.0.2.0/24\n127.0.0.0/8\n", "")
	run("allowlist", "set").want(t, 64, "", "--none")
	run("allowlist", "set", "::/0", "--none").want(t, 64, "", "--none")
	run("allowlist", "set", "--none", "--confirm").want(t, 0, "", "admits nobody")
	if r.LastBody() != `{"prefixes":[],"confirm":true}` {
		t.Errorf("%s", r.LastBody())
	}
}

func TestCompletionAndVersion(t *testing.T) {
	home(t)
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		run("completion", shell).want(t, 0, "fairlead", "")
	}
	run("completion", "tcsh").want(t, 64, "", "must be one of")
	run("version").want(t, 0, "fairlead ", "")
	run("__complete", "bash", "conn").want(t, 0, "connections\t", "")
	run("__complete", "bash", "query", "sales", "--output", "").want(t, 0, "ndjson\t", "")
	run("__complete", "zsh", "--relay", "x", "files", "get", "a:b", "").want(t, 0, ":files", "")
}

// docs/cli.md names every command.
func TestCommandsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	k, err := kong.New(&grammar{})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range k.Model.Leaves(true) {
		group := ""
		if leaf.Parent.Parent != nil {
			group = leaf.Parent.Name + " "
		}
		found := false
		for line := range strings.Lines(string(b)) {
			words := strings.Fields(strings.ReplaceAll(line, "`", " "))
			i := 0
			for ; i < len(words) && words[i] != leaf.Name; i++ {
				continue
			}
			found = found || i < len(words) && strings.Contains(line, "fairlead "+group)
		}
		if !found {
			t.Errorf("docs/cli.md does not show: fairlead %s%s", group, leaf.Name)
		}
	}
}
