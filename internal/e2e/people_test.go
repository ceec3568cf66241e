package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/base32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/totp"
)

const goodPassword = "correct kettle battery fish"

// person makes a user and gives a client with a session of it.
func person(t *testing.T, w *testenv.World, name, role string) (c *client.Client, id string) {
	t.Helper()
	u, err := w.Client.CreateUser(ctx, client.NewUser{Name: name, Roles: []string{role}})
	if err != nil {
		t.Fatal(err)
	}
	nobody := w.NewClient(secret.Bytes{})
	if err := nobody.SetFirstPassword(ctx, client.FirstPassword{Workspace: "default", User: name, Code: u.Code, Password: goodPassword}); err != nil {
		t.Fatal(err)
	}
	s, err := nobody.SignIn(ctx, client.SignIn{Workspace: "default", User: name, Password: goodPassword})
	if err != nil {
		t.Fatal(err)
	}
	return w.NewClient(secret.FromString(s.Session)), s.ID
}

// P11: what runs in a session is cut when it ends, its user is disabled, or the workspace demands what it lacks.
func TestEndedSessionIsCutAtOnce(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	anna, id := person(t, w, "anna", "operator")
	done := cut(openDial(t, anna, "echo"))
	if err := w.Client.EndSession(ctx, id); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "ended session")
	if _, err := anna.Whoami(ctx); err == nil {
		t.Fatal("an ended session is taken")
	} else if c, _ := code(err); c != protocol.CodeUnauthenticated {
		t.Fatal(err)
	}

	bert, _ := person(t, w, "bert", "operator")
	done = cut(openDial(t, bert, "echo"))
	if err := w.Client.DisableUser(ctx, "bert"); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "disabled user")

	cleo, _ := person(t, w, "cleo", "operator")
	done = cut(openDial(t, cleo, "echo"))
	if _, err := w.Client.SetSignInPolicy(ctx, client.SignInPolicy{SecondFactor: true}); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "session without the second factor that is demanded")
}

// The programs, as a person uses them: first sign-in by a one-time code, a second factor, a proof, signing out.
func TestPersonSignsInWithThePrograms(t *testing.T) {
	w := shop(t, testenv.Options{})
	home := t.TempDir()
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "FAIRLEAD_") }), "HOME="+home, "XDG_CONFIG_HOME="+home, "AppData="+home)
	cmd := func(name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), program(t, name), args...)
		c.Env = env
		return c
	}
	run := func(stdin string, args ...string) (string, error) {
		c := cmd("fairlead", args...)
		c.Stdin = strings.NewReader(stdin)
		out, err := c.CombinedOutput()
		return string(out), err
	}
	must := func(stdin string, args ...string) string {
		t.Helper()
		out, err := run(stdin, args...)
		if err != nil {
			t.Fatalf("fairlead %v: %v\n%s", args, err, out)
		}
		return out
	}
	made, err := cmd("fairlead-relay", "user", "anna", "--data", filepath.Join(w.Dir, "relay")).Output()
	if err != nil || !bytes.HasPrefix(made, []byte("fli_")) {
		t.Fatalf("%s %v", made, err)
	}
	at := []string{"--relay", w.Address, "--ca", w.CAFile, "--user", "anna"}
	// The relay sees what its machine's own command wrote within a second or two.
	login := append([]string{"login", "--first"}, at...)
	within(t, 20*time.Second, "anna is there", func() bool {
		out, err := run(string(made)+goodPassword+"\n", login...)
		return err == nil && strings.Contains(out, "signed in to")
	})
	if out := must("", "whoami"); !strings.Contains(out, "anna") || !strings.Contains(out, "admin") {
		t.Fatal(out)
	}

	add := cmd("fairlead", "second-factor", "add")
	in, err := add.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	says, err := add.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	var codes bytes.Buffer
	add.Stdout = &codes
	if err := add.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(says).ReadString('\n')
	found := regexp.MustCompile(`type the secret: ([A-Z2-7]{32})`).FindStringSubmatch(line)
	if err != nil || found == nil {
		t.Fatalf("%q %v", line, err)
	}
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(found[1])
	if err != nil {
		t.Fatal(err)
	}
	factor := secret.New(raw)
	if _, err := io.WriteString(in, totp.Code(factor, totp.StepAt(time.Now()))+"\n"); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(says)
	if err := add.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, rest)
	}
	recovery := strings.Fields(codes.String())
	if len(recovery) != 10 {
		t.Fatalf("%q\n%s", codes.String(), rest)
	}

	if out, err := run(goodPassword+"\n000000\n", append([]string{"login"}, at...)...); err == nil || !strings.Contains(out, "does not let you in") {
		t.Fatalf("a wrong code is taken: %s", out)
	}
	must(goodPassword+"\n"+recovery[0]+"\n", append([]string{"login"}, at...)...)
	if out, err := run(goodPassword+"\n"+recovery[0]+"\n", append([]string{"login"}, at...)...); err == nil {
		t.Fatalf("a recovery code counts twice: %s", out)
	}
	must(recovery[1]+"\n", "confirm")
	code := strings.TrimSpace(strings.SplitN(must("", "users", "invite", "bert", "--role", "analyst"), "\n", 2)[0])
	if !strings.HasPrefix(code, "fli_") {
		t.Fatal(code)
	}
	if out := must("", "sessions", "list"); strings.Count(out, "ses_") < 2 {
		t.Fatal(out)
	}
	if out := must("", "logout"); !strings.Contains(out, "the session has ended") {
		t.Fatal(out)
	}
	if log := w.Log.String(); strings.Contains(log, goodPassword) || strings.Contains(log, found[1]) || strings.Contains(log, recovery[0]) || strings.Contains(log, "fls_") || strings.Contains(log, "fli_") {
		t.Error("P7 a credential stands in the log")
	}
}
