package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/fairleadhq/fairlead"

// source is one Go file of the module.
type source struct {
	path string // relative to the module root, slash-separated
	pkg  string // import path relative to the module, "" for the root
	test bool
	file *ast.File
	text string
}

func load(t *testing.T) (*token.FileSet, []source) {
	t.Helper()
	root := "../.."
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if strings.HasPrefix(d.Name(), ".") && rel != "." || d.Name() == "testdata" || rel == "bin" || rel == "dist" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, b, parser.ParseComments)
		if err != nil {
			return err
		}
		pkg := path.Dir(rel)
		if pkg == "." {
			pkg = ""
		}
		all = append(all, source{rel, pkg, strings.HasSuffix(rel, "_test.go"), f, string(b)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Fatalf("only %d files found: the test looks in the wrong place", len(all))
	}
	return fset, all
}

func imports(s source) []string {
	var list []string
	for _, i := range s.file.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		list = append(list, p)
	}
	return list
}

// under reports whether pkg is dir or inside it.
func under(pkg string, dirs ...string) bool {
	for _, d := range dirs {
		if pkg == d || strings.HasPrefix(pkg, d+"/") {
			return true
		}
	}
	return false
}

// A rule forbids that packages under from import, directly, what deny matches; the reason is part of the rule.
type rule struct {
	from   []string
	except []string
	deny   func(imported string) bool // import path relative to the module for our own, full otherwise
	reason string
}

func own(dirs ...string) func(string) bool { return func(p string) bool { return under(p, dirs...) } }

func exactly(paths ...string) func(string) bool {
	return func(p string) bool { return slices.Contains(paths, p) }
}

var rules = []rule{
	{[]string{"protocol"}, nil, func(p string) bool { return strings.Contains(p, ".") || under(p, "internal", "agent", "relay") },
		"protocol is the contract: a stranger must be able to use it alone (standard library only)"},
	{[]string{"agent"}, nil, own("relay", "internal/testenv"), "the halves meet only in internal/testenv"},
	{[]string{"relay"}, nil, own("agent", "internal/testenv"), "the halves meet only in internal/testenv"},
	// internal/bench enrols many agents and runs them in one process, and asks the relay as callers do.
	{[]string{"internal"}, []string{"internal/testenv", "internal/e2e", "internal/archtest", "internal/bench"}, own("agent", "relay"), "internal packages serve both halves and know neither"},
	{[]string{"internal/bench"}, nil, func(p string) bool {
		return under(p, "relay") && p != "relay/client" && p != "relay/authz" || under(p, "agent") && p != "agent" && p != "agent/enroll"
	},
		"the bench measures what is built and shipped: of the halves it takes the client, the agent as a library, enrolment, and the decision that each request pays for; no other inner part"},
	{[]string{"agent", "relay", "internal", "protocol"}, []string{"internal/bench"}, own("internal/bench"), "the bench is no part of the product"},
	{[]string{"agent", "relay", "internal", "protocol"}, []string{"internal/bench", "internal/wan"}, own("internal/wan"), "the emulated line is for the bench and for tests"},
	{[]string{"agent/connector"}, nil, own("agent/uplink", "internal/tunnel", "internal/audit", "agent/enroll"), "a connector sees a call and a writer, never a tunnel or the audit log"},
	{[]string{"agent/policy", "relay/authz", "internal/allowlist", "internal/mask", "internal/envelope"}, nil,
		exactly("net", "net/http", "os/exec", "log/slog", "math/rand", "math/rand/v2"), "decisions are pure: no network, no logger, no chance"},
	{[]string{"agent/policy", "relay/authz", "internal/allowlist", "internal/mask"}, nil, exactly("os", "crypto/rand"), "decisions are pure: no files, no chance"},
	{[]string{"relay/store"}, nil, own("relay/vault", "internal/envelope"), "the store holds sealed bytes that it cannot open"},
	{[]string{"relay/hub"}, nil, own("relay/store", "relay/directory", "relay/vault", "relay/authz"), "the hub knows tunnels, not rights"},
	{[]string{"relay", "agent", "internal"}, []string{"relay/vault", "internal/envelope"}, own("internal/envelope"), "vault is the only package that opens envelopes"},
	{[]string{"relay"}, []string{"relay", "relay/vault", "relay/directory", "relay/dispatch", "relay/broker"}, own("relay/vault"), "few hands reach the vault"},
	{[]string{"relay/client"}, nil, func(p string) bool {
		return under(p, "relay", "agent") && p != "relay/client" || strings.HasPrefix(p, "github.com/danielgtaylor")
	}, "the client library stands on protocol, internal/secret and internal/tunnel alone"},
}

func TestImportsPointOneWay(t *testing.T) {
	_, all := load(t)
	for _, s := range all {
		if s.test {
			continue
		}
		for _, imp := range imports(s) {
			rel := strings.TrimPrefix(strings.TrimPrefix(imp, module), "/")
			for _, r := range rules {
				exempt := false
				for _, e := range r.except {
					if s.pkg == e || e != "relay" && under(s.pkg, e) {
						exempt = true
					}
				}
				if under(s.pkg, r.from...) && !exempt && r.deny(rel) {
					t.Errorf("%s imports %s: %s", s.path, imp, r.reason)
				}
			}
			if strings.Contains(rel, "/cmd/") {
				t.Errorf("%s imports %s: nobody imports a main", s.path, imp)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	_, all := load(t)
	docs, pkgs := map[string][]string{}, map[string]bool{}
	for _, s := range all {
		if s.test {
			continue
		}
		pkgs[s.pkg] = true
		if s.file.Doc != nil {
			docs[s.pkg] = append(docs[s.pkg], s.path)
		}
	}
	for p := range pkgs {
		want := path.Join(p, "doc.go")
		if len(docs[p]) != 1 || docs[p][0] != want {
			t.Errorf("package %s: want its one package comment in %s, have it in %v", p, want, docs[p])
		}
	}
}

func TestFolderNamesMeanSomething(t *testing.T) {
	_, all := load(t)
	for _, s := range all {
		for _, part := range strings.Split(s.pkg, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "models", "base", "misc", "lib"}, part) {
				t.Errorf("%s: a folder named %q says nothing", s.path, part)
			}
		}
	}
}

// TestDirectDependenciesAreTheAgreedList holds go.mod against internal/adr/dependencies.md: each has its line of reason.
func TestDirectDependenciesAreTheAgreedList(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	adr, err := os.ReadFile("../adr/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^(replace|exclude)\b`).Match(mod) {
		t.Error("go.mod has a replace or exclude line")
	}
	var have, agreed []string
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require )?([a-z0-9.-]+\.[a-z]+/\S+|[a-z.]+/[a-z]+) v\S+$`).FindAllStringSubmatch(string(mod), -1) {
		have = append(have, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(adr), -1) {
		agreed = append(agreed, m[1])
	}
	sort.Strings(have)
	sort.Strings(agreed)
	if len(have) == 0 || !slices.Equal(have, agreed) {
		t.Errorf("go.mod and internal/adr/dependencies.md differ:\n go.mod: %v\n agreed: %v", have, agreed)
	}
}

// A ban names a piece of text that may stand only in the files named.
type ban struct {
	what    *regexp.Regexp
	allowed []string // folders or files
	reason  string
}

var bans = []ban{
	{regexp.MustCompile(`InsecureSkipVerify:\s*true`), []string{"internal/mtls", "agent/connector/httpapi", "agent/connector/sqldb", "relay/relay.go"},
		"a certificate that is not checked must be checked by other means, in one place"},
	{regexp.MustCompile(`\bnet\.Dial(Timeout|TCP)?\(`), nil, "dial through a dialer that checks the address it dials"},
	{regexp.MustCompile(`http\.Default(Client|Transport)|http\.(Get|Post|PostForm|Head)\(`), nil, "no time-outs and the environment's proxies"},
	{regexp.MustCompile(`QueryExecModeSimpleProtocol|MultiStatements:\s*true|AllowAllFiles:\s*true|RegisterLocalFile`), nil, "the simple protocol and its like run several statements or read local files"},
	{regexp.MustCompile(`http\.ProxyFromEnvironment`), nil, "the environment decides no route"},
	{regexp.MustCompile(`httpproxy\.`), []string{"agent/uplink/proxy.go"}, "the environment decides a route only where agent.yaml says so"},
	{regexp.MustCompile(`math/rand"`), nil, "use math/rand/v2 for jitter, crypto/rand for everything else"},
	{regexp.MustCompile(`\btime\.Sleep\(`), nil, "wait on a channel, a timer in a select, or a condition"},
}

func TestSomeCallsStandOnlyWhereTheyBelong(t *testing.T) {
	_, all := load(t)
	for _, s := range all {
		if s.pkg == "internal/archtest" {
			continue
		}
		for _, b := range bans {
			sleeps := strings.Contains(b.what.String(), "Sleep")
			// In a synctest bubble a sleep costs no time and wakes exactly when it should.
			if sleeps && slices.Contains(imports(s), "testing/synctest") {
				continue
			}
			if s.test && !sleeps || under(s.path, b.allowed...) || under(s.pkg, b.allowed...) {
				continue
			}
			for i, line := range strings.Split(s.text, "\n") {
				if code, _, _ := strings.Cut(line, "//"); b.what.MatchString(code) {
					t.Errorf("%s:%d: %s: %s", s.path, i+1, strings.TrimSpace(line), b.reason)
				}
			}
		}
	}
}
