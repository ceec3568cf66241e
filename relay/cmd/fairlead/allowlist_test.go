package main

import (
	"slices"
	"testing"
)

// One network is added or taken away without knowing the others, and what somebody else changed meanwhile stays.
func TestAllowlistAddAndRemove(t *testing.T) {
	r := setup(t)
	puts := func() int { return r.Requested("PUT /api/v1/workspaces/default/allowlist") }
	run("allowlist", "add", "callers", "192.0.2.0/24", "198.51.100.7").want(t, 0, "127.0.0.0/8\n192.0.2.0/24\n198.51.100.7/32\n", "")
	if b := r.LastBody(); b != `{"prefixes":["127.0.0.0/8","192.0.2.0/24","198.51.100.7/32"]}` || r.LastIfMatch() == "" {
		t.Errorf("%s, if it is still %q", b, r.LastIfMatch())
	}
	n := puts()
	run("allowlist", "add", "callers", "192.0.2.0/24", "198.51.100.7/32").want(t, 0, "192.0.2.0/24\n", "nothing changes")
	run("allowlist", "remove", "callers", "203.0.113.0/24").want(t, 66, "", "203.0.113.0/24 is not on the list")
	run("allowlist", "remove", "callers", "192.0.2.7").want(t, 66, "", "192.0.2.7/32 is not on the list by itself: it is in 192.0.2.0/24")
	run("allowlist", "add", "callers", "192.0.2.7/24").want(t, 64, "", "nothing was changed")
	run("allowlist", "add", "callers").want(t, 64, "", "prefixes")
	run("allowlist", "add", "everybody", "192.0.2.0/24").want(t, 64, "", "callers")
	if puts() != n {
		t.Error("something was set")
	}
	run("allowlist", "remove", "callers", "198.51.100.7").want(t, 0, "127.0.0.0/8\n192.0.2.0/24\n", "")
	// The guard against shutting oneself out is that of set, and so is the dry run.
	run("allowlist", "remove", "callers", "127.0.0.0/8").want(t, 73, "", "--dry-run who would be cut")
	run("allowlist", "remove", "callers", "127.0.0.0/8", "--dry-run").want(t, 0, "ses_1", "your own address would be shut out")
	run("allowlist", "show").want(t, 0, "127.0.0.0/8\n192.0.2.0/24\n", "")
	run("allowlist", "remove", "callers", "127.0.0.0/8", "--confirm").want(t, 0, "192.0.2.0/24\n", "")
	run("allowlist", "remove", "callers", "192.0.2.0/24", "--confirm").want(t, 73, "", "the list would be empty")
	// A list that is not there is not begun: it would shut out all that stood in the other one.
	run("allowlist", "add", "people", "192.0.2.0/24").want(t, 73, "", "people have no list of their own, and go by that of callers")
	run("allowlist", "add", "agents", "192.0.2.0/24").want(t, 73, "", "may come from everywhere")
	r.Allowlists["agents"] = []string{"192.0.2.0/24"}
	run("allowlist", "add", "agents", "2001:db8::/32").want(t, 0, "agents:\n  192.0.2.0/24\n  2001:db8::/32\n", "")
	if b := r.LastBody(); b != `{"prefixes":["192.0.2.0/24","2001:db8::/32"],"for":"agents"}` {
		t.Error(b)
	}
	run("allowlist", "remove", "agents", "2001:db8::/32", "192.0.2.0/24").want(t, 73, "", "--unset takes the list away")
	// Somebody is faster once: the list is read anew, and nothing of theirs is lost. Twice: nothing is done.
	r.Allowlist = []string{"127.0.0.0/8"}
	faster := 1
	r.BeforeAllowlist = func() {
		if faster > 0 {
			faster--
			r.Allowlist = append(slices.Clone(r.Allowlist), "203.0.113.0/24")
		}
	}
	run("allowlist", "add", "callers", "192.0.2.0/24").want(t, 0, "127.0.0.0/8\n203.0.113.0/24\n192.0.2.0/24\n", "")
	faster, n = 9, puts()
	run("allowlist", "add", "callers", "198.51.100.0/24").want(t, 73, "", "another by now")
	if puts() != n+2 || slices.Contains(r.Allowlist, "198.51.100.0/24") {
		t.Errorf("%d tries, %q", puts()-n, r.Allowlist)
	}
	// Who names what was read gets no second try.
	n = puts()
	run("allowlist", "add", "callers", "198.51.100.0/24", "--if-match", `"old"`).want(t, 73, "", "another by now")
	if puts() != n+1 || r.LastIfMatch() != `"old"` {
		t.Errorf("%d tries, if it is still %s", puts()-n, r.LastIfMatch())
	}
}
