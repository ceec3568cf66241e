package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"rsc.io/qr"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

func TestSignInAndOut(t *testing.T) {
	home(t)
	r := clienttest.New(t)
	at := []string{"--relay", r.Host, "--ca", r.CAFile}
	login := func(stdin string, args ...string) result {
		return runIn(strings.NewReader(stdin), append(append([]string{"login"}, at...), args...)...)
	}
	login("x", "--first").want(t, 64, "", "--user NAME")
	login("wrong\n", "--user", "anna").want(t, 77, "", "does not let you in")
	login("", "--user", "anna").want(t, 64, "", "Password is empty")
	path, err := loginFile()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a sign-in that failed was saved")
	}
	login("fli_wrong\n"+clienttest.Password+"\n", "--user", "anna", "--first").want(t, 77, "", "does not let you in")
	login(clienttest.OneTime+"\n"+clienttest.Password+"\n", "--user", "anna", "--first").want(t, 0, "", "the password is set")
	login(clienttest.Password+"\r\n", "--user", "anna", "--for", "8h", "--idle", "30m").want(t, 0, "", "signed in to "+r.URL+" as anna")
	if body := r.LastBody(); !strings.Contains(body, `"idle_seconds":1800,"life_seconds":28800`) {
		t.Error(body)
	}
	run("whoami").want(t, 0, "admin", "")
	run("account").want(t, 0, "per_1", "second-factor add")
	res := runIn(strings.NewReader(clienttest.Code+"\n"), "second-factor", "add")
	res.want(t, 0, "aaaa-bbbb\n", "GEZDGNBV")
	if res.out != "aaaa-bbbb\ncccc-dddd\n" {
		t.Errorf("more than the codes on standard output: %q", res.out)
	}
	runIn(strings.NewReader("000000\n"), "second-factor", "add").want(t, 77, "", "not the right answer")
	run("account", "-o", "json").want(t, 0, `"recovery_codes": 2`, "")
	runIn(strings.NewReader(clienttest.Code+"\n"), "confirm").want(t, 0, "", "confirmed")
	runIn(strings.NewReader("1\n"), "confirm").want(t, 77, "", "not the right answer")
	run("second-factor", "recovery-codes").want(t, 0, "eeee-ffff\n", "not shown again")
	login(clienttest.Password+"\n"+clienttest.Code+"\n", "--user", "anna").want(t, 0, "", "signed in")
	runIn(strings.NewReader("old\nnew one\n"), "password").want(t, 0, "", "is changed")
	if body := r.LastBody(); body != `{"password":"old","new_password":"new one"}` {
		t.Error(body)
	}
	run("second-factor", "remove").want(t, 0, "", "is removed")
	runIn(strings.NewReader(clienttest.Password+"\n"), "confirm").want(t, 0, "", "confirmed")

	run("sessions", "list").want(t, 0, `evil\x1b[2J`, "")
	run("sessions", "list", "--everybody", "-o", "json").want(t, 0, `"current": true`, "")
	run("sessions", "end", "ses_1").want(t, 0, "", "ended")
	run("sessions", "end", "ses_1", "--any").want(t, 0, "", "ended")
	run("sessions", "end", "ses_9").want(t, 66, "", "no such session")
	run("sessions", "end", "--others").want(t, 0, "", "ended")
	run("sessions", "end", "--user", "anna").want(t, 0, "", "ended")
	run("sessions", "end").want(t, 64, "", "want the id")
	run("sessions", "end", "ses_1", "--others").want(t, 64, "", "want the id")

	run("logout").want(t, 0, "", "the session has ended")
	if r.Requested("POST /api/v1/sign-out") != 1 {
		t.Error("the relay was not told")
	}
	run("logout").want(t, 0, "", "no saved login")

	// A session that was given by the environment is not saved; its new text goes back to who gave it.
	t.Setenv("FAIRLEAD_RELAY", r.Host)
	t.Setenv("FAIRLEAD_CA", r.CAFile)
	t.Setenv("FAIRLEAD_TOKEN", clienttest.Session)
	runIn(strings.NewReader(clienttest.Password+"\n"), "confirm").want(t, 0, clienttest.Session+"\n", "new text")
	if _, err := os.Stat(path); err == nil {
		t.Error("it was saved")
	}
}

func TestUsersAndPolicy(t *testing.T) {
	r := setup(t)
	run("users", "list").want(t, 0, "anna", "")
	link := run("users", "invite", "bert", "--role", "operator", "--link")
	link.want(t, 0, "https://"+r.Host+"/account/first#code="+clienttest.OneTime+"&user=bert&workspace=default\n", "counts once")
	if strings.Count(link.out+link.errs, clienttest.OneTime) != 1 {
		t.Errorf("%+v", link)
	}
	run("users", "code", "anna", "--link").want(t, 0, "/account/first#code=", "counts once")
	run("users", "code", "anna", "--link", "-o", "json").want(t, 64, "", "--link")
	res := run("users", "invite", "bert", "--role", "operator", "--expires", "7d")
	res.want(t, 0, clienttest.OneTime+"\n", "--user bert --first")
	if res.out != clienttest.OneTime+"\n" || r.LastBody() != `{"name":"bert","roles":["operator"],"expires_in_seconds":604800}` {
		t.Errorf("%q %s", res.out, r.LastBody())
	}
	run("users", "invite", "cleo", "--role", "analyst", "--person", "per_1").want(t, 0, "", "the password that it has")
	run("users", "invite", "x").want(t, 64, "", "--role")
	run("users", "code", "anna").want(t, 0, clienttest.OneTime+"\n", "counts once")
	res = run("users", "invite", "dora", "--role", "operator", "--email", "bert@example.com", "--send")
	res.want(t, 0, "", "goes by e-mail to b***@example.com")
	if res.out != "" || r.LastBody() != `{"name":"dora","roles":["operator"],"email":"bert@example.com","send":true}` {
		t.Errorf("%q %s", res.out, r.LastBody())
	}
	run("users", "invite", "emil", "--role", "operator", "--email", "bert@example.com", "--no-send").want(t, 0, clienttest.OneTime+"\n", "counts once")
	run("users", "email", "anna", "anna@example.com").want(t, 0, "", "another e-mail address")
	if r.LastBody() != `{"email":"anna@example.com"}` {
		t.Error(r.LastBody())
	}
	run("users", "email", "anna", "--remove").want(t, 0, "", "no e-mail address")
	run("users", "email", "anna").want(t, 64, "", "--remove alone")
	run("users", "email", "nobody", "a@example.com").want(t, 66, "", "no such user")
	run("users", "code", "nobody").want(t, 66, "", "no such user")
	run("users", "disable", "anna").want(t, 0, "", "is disabled")
	run("users", "enable", "anna").want(t, 0, "", "is enabled")
	run("users", "reset-factor", "anna").want(t, 0, "", "no second factor")
	run("users", "remove", "anna", "--yes").want(t, 0, "", "is removed")
	run("users", "remove", "nobody").want(t, 66, "", "no such user")
	run("users", "list", "-o", "json").want(t, 0, `"invited_until"`, "")
}

// The drawing is the code: read back, each half block is the module that it stands for.
func TestQRCodeIsDrawnAsItIs(t *testing.T) {
	const text = "otpauth://totp/Fairlead%20default:anna?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Fairlead%20default"
	var out bytes.Buffer
	if err := printQR(&cli.Term{Err: &out}, text); err != nil {
		t.Fatal(err)
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != (code.Size+8+1)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), code.Size)
	}
	for i, line := range lines {
		row := []rune(strings.TrimSuffix(strings.TrimPrefix(line, "\x1b[30;107m"), "\x1b[0m"))
		if len(row) != code.Size+8 {
			t.Fatalf("%d characters in line %d", len(row), i)
		}
		for x, c := range row {
			top, bottom := c == '▀' || c == '█', c == '▄' || c == '█'
			if top != code.Black(x-4, 2*i-4) || bottom != code.Black(x-4, 2*i-3) {
				t.Fatalf("line %d, column %d: %q", i, x, c)
			}
		}
	}
}
