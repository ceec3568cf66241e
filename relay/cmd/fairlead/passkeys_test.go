package main

import (
	"strings"
	"testing"
)

func TestPasskeysAreListedAndRemoved(t *testing.T) {
	setup(t)
	run("passkeys", "list").want(t, 0, `laptop\x1b[2J`, "/account")
	if out := run("passkeys", "list").out; !strings.Contains(out, "may have a copy: refused since") {
		t.Error(out)
	}
	run("passkeys", "list", "-o", "json").want(t, 0, `"backup_eligible": true`, "")
	run("passkeys", "remove", "pky_1").want(t, 0, "", "is removed")
	run("passkeys", "remove", "pky_9").want(t, 66, "", "no such passkey")
	run("sign-in-policy", "set", "--passkeys", "required").want(t, 0, "required", "passkeys: allowed -> required")
	run("sign-in-policy", "set", "--passkeys", "sometimes").want(t, 64, "", "allowed")
}
