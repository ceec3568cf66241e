package main

import (
	"strings"
	"testing"
)

// What is not given stays; what demands less than before is done only by who says so; and nobody's change is undone unseen.
func TestSignInPolicyChangesOnlyWhatIsGiven(t *testing.T) {
	r := setup(t)
	run("sign-in-policy", "show").want(t, 0, "15 characters", "")
	run("sign-in-policy", "set", "--second-factor", "--passkeys", "required", "--min-length", "20", "--classes", "3", "--max-age", "90", "--history", "5", "--absolute", "8h").
		want(t, 0, "demanded of everybody", "second factor: no -> demanded of everybody\npasskeys: allowed -> required\nleast length: 15 characters -> 20 characters\n")
	const rest = `"second_factor":true,"passkeys":"required","min_length":20,"classes":3,"max_age_days":90,"history":5,`
	run("sign-in-policy", "set", "--idle", "30m").want(t, 0, "after 30m0s", "idle session ends: after 1h0m0s -> after 30m0s\n")
	if body := r.LastBody(); body != `{`+rest+`"idle_seconds":1800,"absolute_seconds":28800,"step_up_seconds":300}` || r.LastIfMatch() != `"p2"` {
		t.Errorf("%s, if it is still %s", body, r.LastIfMatch())
	}
	puts := func() int { return r.Requested("PUT /api/v1/workspaces/default/sign-in-policy") }
	before := puts()
	for _, loose := range []string{"--no-second-factor", "--passkeys allowed", "--passkeys off", "--min-length 19", "--classes 0", "--max-age 0", "--max-age 91", "--history 0", "--idle 2h", "--absolute 9h", "--step-up 10m", "--personal-tokens 30d"} {
		run(append([]string{"sign-in-policy", "set"}, strings.Fields(loose)...)...).want(t, 64, "", "this demands less than before")
	}
	if puts() != before {
		t.Error("a policy was loosened that nobody said yes to")
	}
	run("sign-in-policy", "set", "--personal-tokens", "30d", "--step-up", "10m", "--yes").want(t, 0, "for 10m0s", "personal tokens: no -> for 720h0m0s")
	for _, strict := range []string{"--no-personal-tokens", "--step-up 5m", "--min-length 21", "--max-age 30", "--classes 4", "--history 6"} {
		run(append([]string{"sign-in-policy", "set"}, strings.Fields(strict)...)...).want(t, 0, "demanded of everybody", " -> ")
	}
	run("sign-in-policy", "set", "--min-length", "21").want(t, 0, "21 characters", "nothing changes")
	run("sign-in-policy", "set", "--idle", "5m", "--if-match", `"p1"`).want(t, 73, "", "another by now")
	if r.LastIfMatch() != `"p1"` {
		t.Error(r.LastIfMatch())
	}
	// Eight characters are enough beside a second factor alone.
	run("sign-in-policy", "set", "--min-length", "8", "--yes").want(t, 0, "8 characters", "least length: 21 characters -> 8 characters")
	run("sign-in-policy", "set", "--no-second-factor", "--yes").want(t, 0, "15 characters", "least length: 8 characters -> 15 characters")

	run("sign-in-policy", "set", "--defaults", "-o", "json").want(t, 0, `"min_length": 15`, "")
	if body := r.LastBody(); body != "{}" || r.LastIfMatch() != "" {
		t.Errorf("%s, if it is still %s", body, r.LastIfMatch())
	}
	run("sign-in-policy", "set").want(t, 64, "", "--defaults")
	run("sign-in-policy", "set", "--defaults", "--classes", "3").want(t, 64, "", "--defaults")
	run("sign-in-policy", "set", "--personal-tokens", "1d", "--no-personal-tokens").want(t, 64, "", "not both")
}
