package main

import (
	"testing"
)

func TestBudgetCommands(t *testing.T) {
	r := setup(t)
	run("budget", "show").want(t, 0, "no limit", "")
	run("budget", "set", "--rate", "10", "--egress", "1MiB").want(t, 0, "10 a second, 10 at once", "")
	if body := r.LastBody(); body != `{"rate":10,"egress":1048576}` {
		t.Error(body)
	}
	run("budget", "show").want(t, 0, "1.0 MiB a second", "")
	run("budget", "set", "sales", "--concurrent", "3", "-o", "json").want(t, 0, `"concurrent": 3`, "")
	run("budget", "show", "sales").want(t, 0, "at a time:  3", "")
	run("budget", "set", "sales", "--none").want(t, 0, "no limit", "")
	run("budget", "show", "nothing").want(t, 66, "", "no such connection")
	run("budget", "set").want(t, 64, "", "want limits")
	run("budget", "set", "--none", "--rate", "1").want(t, 64, "", "want limits")
	run("budget", "set", "--egress", "fast").want(t, 64, "", "is not a size")
}
