package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/cli"
)

// explain tells the site's admin what callers are not told: that there is no such profile.
func TestExplainSaysThatThereIsNoSuchProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	base := filepath.ToSlash(t.TempDir())
	if err := os.WriteFile(file, []byte("version: 1\nfiles:\n  hr: { base: '"+base+"', allow: [read] }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		status int
		want   string
		args   []string
	}{
		{0, "allowed by files.hr.allow\n", []string{"read", "hr", "a.csv"}},
		{77, "under files.hr.allow", []string{"write", "hr", "a.csv"}},
		{77, `no files profile "hrx"; it has: hr`, []string{"read", "hrx", "a.csv"}},
		{77, "no database profile at all", []string{"query", "sales", "select 1"}},
	} {
		var out, errs bytes.Buffer
		p := cli.Program{Name: "fairlead-agent", Grammar: &grammar{}, Bind: []any{build{"v1"}}}
		status := cli.Run(p, append([]string{"explain", "--config", file}, c.args...), nil, &out, &errs)
		if status != c.status || !strings.Contains(out.String(), c.want) || strings.Contains(out.String(), "allowed: allowed") {
			t.Errorf("%v: status %d, want %d with %q: %s%s", c.args, status, c.status, c.want, &out, &errs)
		}
	}
}
