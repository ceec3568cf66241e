package main

import (
	"strings"
	"testing"
)

// A change that somebody else was faster with is refused, and what was given as --if-match is what the relay is asked.
func TestChangesOnlyIfItIsStillWhatWasRead(t *testing.T) {
	r := setup(t)
	run("roles", "create", "reader", "--action", "connection.query").want(t, 0, "", "is made")
	run("roles", "update", "reader", "--add", "connection.list", "--if-match", `"0"`).want(t, 73, "", "the role is another by now")
	run("roles", "update", "reader", "--add", "connection.list", "--if-match", `"1"`).want(t, 0, "connection.list", "")
	for _, args := range []string{
		"agents disable plant", "agents enable plant", "groups delete default", "connections delete sales", "connections gateway sales 127.0.0.1:15432", "connections gateway sales off",
		"tokens revoke tok_1", "join-token revoke jtk_1", "allowlist set 192.0.2.0/24", "budget set --rate 5", "sign-in-policy set --second-factor", "roles delete reader", "grants delete gra_1",
		"teams add night reports", "teams remove night reports", "teams delete night", "users code anna", "users disable anna", "users enable anna", "users reset-factor anna", "users remove anna",
		"sessions end ses_1", "passkeys remove pky_1", "agents remove plant",
	} {
		asked := len(r.IfMatch)
		got := run(append(strings.Fields(args), "--if-match", `"tag"`)...)
		if len(r.IfMatch) == asked {
			t.Errorf("%s asked nothing: %+v", args, got)
		}
		if got := r.LastIfMatch(); got != `"tag"` {
			t.Errorf("%s --if-match asks with If-Match %q", args, got)
		}
	}
}
