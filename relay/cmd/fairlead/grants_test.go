package main

import (
	"slices"
	"strings"
	"testing"
)

// Each filter shows exactly what it names: nothing above, below or beside it, and several must all fit.
func TestGrantsListFilters(t *testing.T) {
	setup(t)
	for _, args := range []string{
		"reader --to bob --connection sales", "reader --to bob --project sales", "writer --to bob --project sales --folder reports", "reader --to bob --project sales --environment test",
		"reader --to-team bob --environment test", "admin --to eve",
	} {
		run(append([]string{"grants", "create"}, strings.Fields(args)...)...).want(t, 0, "", "grant gra_2")
	}
	for _, e := range []struct {
		filter []string
		want   []string // role, to and on of each
	}{
		{[]string{"--to", "bob"}, []string{"reader bob connection sales", "reader bob project sales", "writer bob project sales/reports", "reader bob project sales in test"}},
		{[]string{"--to", "team bob"}, []string{"reader team bob environment test"}},
		{[]string{"--role", "writer"}, []string{"writer bob project sales/reports"}},
		{[]string{"--on", "sales"}, []string{"reader bob connection sales"}},
		{[]string{"--on", "project/sales"}, []string{"reader bob project sales", "reader bob project sales in test"}},
		{[]string{"--on", "project/sales/reports"}, []string{"writer bob project sales/reports"}},
		{[]string{"--on", "environment/test"}, []string{"reader team bob environment test"}},
		{[]string{"--on", "workspace", "--to", "eve"}, []string{"admin eve workspace"}},
		{[]string{"--on", "workspace", "--to", "eve", "--role", "reader"}, nil},
		{[]string{"--to", "bo"}, nil},
	} {
		got := run(append([]string{"grants", "list"}, e.filter...)...)
		var lines []string
		for i, line := range strings.Split(strings.TrimSpace(got.out), "\n") {
			if f := strings.Fields(line); i > 0 {
				lines = append(lines, strings.Join(f[1:], " "))
			}
		}
		if got.status != 0 || !slices.Equal(lines, e.want) {
			t.Errorf("%q: %q, want %q %s", e.filter, lines, e.want, got.errs)
		}
	}
	run("grants", "list", "--on", "environment/prod").want(t, 64, "", "want environment/development")
	run("grants", "list", "--to", "nobody", "-o", "json").want(t, 0, "[]", "")
}
