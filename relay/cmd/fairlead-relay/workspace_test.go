package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/cli"
)

// on runs fairlead-relay.
func on(args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = cli.Run(program(), args, strings.NewReader(""), &o, &e)
	return status, o.String(), e.String()
}

// installed makes an installation and gives its folder.
func installed(t *testing.T) string {
	t.Helper()
	data := filepath.Join(t.TempDir(), "relay")
	if status, _, errs := on("init", "--data", data, "--public-address", "relay.example.com:443"); status != 0 {
		t.Fatal(errs)
	}
	return data
}

// listed gives what workspace list knows, by name.
func listed(t *testing.T, data string) map[string]workspaceRow {
	t.Helper()
	status, out, errs := on("workspace", "list", "--data", data, "--output", "json")
	var rows []workspaceRow
	if err := json.Unmarshal([]byte(out), &rows); status != 0 || err != nil {
		t.Fatal(status, errs, err)
	}
	all := map[string]workspaceRow{}
	for _, r := range rows {
		all[r.Name] = r
	}
	return all
}

func TestWorkspaceCreate(t *testing.T) {
	data := installed(t)
	status, out, errs := on("workspace", "create", "sales", "--owner", "Anna", "--data", data, "--allow", "203.0.113.0/24", "--allow", "2001:db8::1")
	if status != 0 || !strings.HasPrefix(out, "fli_") || strings.Count(out, "\n") != 1 {
		t.Fatal(status, out, errs)
	}
	for _, want := range []string{"made workspace sales (ws_", "callers may come from: 203.0.113.0/24, 2001:db8::1/128\n", "owner:                 anna\n",
		"fairlead login --relay relay.example.com:443 --workspace sales --user anna --first"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not in %s", want, errs)
		}
	}
	if strings.Contains(errs, "fli_") {
		t.Error("the code stands among the remarks, too")
	}
	r := listed(t, data)["sales"]
	if len(r.Owners) != 1 || r.Owners[0] != "anna" || r.Users != 1 || r.Agents+r.Connections != 0 {
		t.Errorf("%+v", r)
	}
	t.Run("where nobody says who may come, this machine may, and it is said", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "code")
		status, out, errs := on("workspace", "create", "lab", "--owner", "bert", "--data", data, "--code-file", file)
		if status != 0 || out != "" || !strings.Contains(errs, "callers may come from: 127.0.0.0/8, ::1/128\n") || !strings.Contains(errs, "this machine only") {
			t.Fatal(status, out, errs)
		}
		b, err := os.ReadFile(file)
		info, serr := os.Stat(file)
		if err != nil || serr != nil || !bytes.HasPrefix(b, []byte("fli_")) || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Fatal(err, serr, info)
		}
		if bytes.Contains([]byte(errs), bytes.TrimSpace(b)) {
			t.Error("the code stands among the remarks, too")
		}
	})
	t.Run("as a link", func(t *testing.T) {
		status, out, errs := on("workspace", "create", "press", "--owner", "cleo", "--data", data, "--link")
		if status != 0 || !strings.HasPrefix(out, "https://relay.example.com:443/account/first#") || !strings.Contains(out, "workspace=press") {
			t.Fatal(status, out, errs)
		}
	})
	t.Run("as a table", func(t *testing.T) {
		status, out, errs := on("workspace", "list", "--data", data)
		if lines := strings.Split(out, "\n"); status != 0 || len(lines) != 6 || !strings.HasPrefix(lines[0], "NAME") || !strings.HasPrefix(lines[4], "sales") || !strings.Contains(lines[4], "anna") {
			t.Fatal(status, out, errs)
		}
	})
}

// Whatever is refused makes nothing: no workspace, no file, no code.
func TestWorkspaceCreateRefuses(t *testing.T) {
	data := installed(t)
	if status, _, errs := on("workspace", "create", "sales", "--owner", "anna", "--data", data); status != 0 {
		t.Fatal(errs)
	}
	taken := filepath.Join(t.TempDir(), "taken")
	if err := os.WriteFile(taken, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "code")
	for _, c := range []struct {
		name   string
		status int
		says   string
		args   []string
	}{
		{"a name that is none", 64, "the name is not usable", []string{"a b", "--owner", "anna"}},
		{"a name that looks like an id", 64, "the name looks like an id", []string{"ws_aaaaaaaaaaaaaaaaaaaaaaaaaa", "--owner", "anna"}},
		{"a name that is taken", 73, "a workspace of this name exists", []string{"sales", "--owner", "anna"}},
		{"the first one's name", 73, "a workspace of this name exists", []string{"default", "--owner", "anna"}},
		{"no owner", 64, "--owner", []string{"lab"}},
		{"an owner without a name", 64, "the workspace has no owner", []string{"lab", "--owner", " "}},
		{"an owner's name that is none", 64, "the user name is not usable", []string{"lab", "--owner", "an na"}},
		{"what is no network", 64, "--allow", []string{"lab", "--owner", "anna", "--allow", "203.0.113.0/33"}},
		{"a network with bits behind the mask", 64, "did you mean 203.0.113.0/24", []string{"lab", "--owner", "anna", "--allow", "203.0.113.7/24"}},
		{"nobody's id", 66, "no such person", []string{"lab", "--owner", "anna", "--person", "per_aaaaaaaaaaaaaaaaaaaaaaaaaa"}},
		{"a code for who has a password", 64, "there is no code", []string{"lab", "--owner", "anna", "--person", "per_aaaaaaaaaaaaaaaaaaaaaaaaaa", "--link"}},
		{"a code that counts for too long", 64, "life is out of range", []string{"lab", "--owner", "anna", "--expires", "1000h"}},
		{"a file that is there", 73, "is there already", []string{"lab", "--owner", "anna", "--code-file", taken}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"workspace", "create", "--data", data}, c.args...)
			if !strings.Contains(strings.Join(args, " "), "--code-file") && !strings.Contains(strings.Join(args, " "), "--person") {
				args = append(args, "--code-file", file)
			}
			status, out, errs := on(args...)
			if status != c.status || out != "" || !strings.Contains(errs, c.says) || strings.Contains(errs, "fli_") {
				t.Errorf("status %d, want %d\n%s%s", status, c.status, out, errs)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("a file was left")
			}
			if all := listed(t, data); len(all) != 2 || all["default"].ID == "" || all["sales"].ID == "" {
				t.Errorf("there are now %v", all)
			}
		})
	}
	if b, err := os.ReadFile(taken); err != nil || string(b) != "mine" {
		t.Error("a file was replaced", err)
	}
	t.Run("a folder that is none of a relay", func(t *testing.T) {
		for _, args := range [][]string{{"create", "lab", "--owner", "anna"}, {"list"}} {
			if status, out, errs := on(append(append([]string{"workspace"}, args...), "--data", t.TempDir())...); status == 0 || out != "" || !strings.Contains(errs, "holds no installation") {
				t.Error(args, status, out, errs)
			}
		}
	})
}

// The code of a user is written for who asked alone, into a file that is new.
func TestUserCodeFile(t *testing.T) {
	data := installed(t)
	file := filepath.Join(t.TempDir(), "code")
	if status, out, errs := on("user", "anna", "--data", data, "--code-file", file); status != 0 || out != "" || !strings.Contains(errs, "--user anna --first") || strings.Contains(errs, "--workspace") {
		t.Fatal(status, out, errs)
	}
	first, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(first, []byte("fli_")) {
		t.Fatal(err)
	}
	if status, _, errs := on("user", "anna", "--data", data, "--code-file", file); status != 73 || !strings.Contains(errs, "is there already") {
		t.Fatal(status, errs)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(first, again) {
		t.Error("the file was replaced", err)
	}
	missing := filepath.Join(t.TempDir(), "code")
	if status, _, errs := on("user", "anna", "--data", data, "--workspace", "none", "--code-file", missing); status != 66 || !strings.Contains(errs, "no such workspace") {
		t.Fatal(status, errs)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("a file was left")
	}
}
