package browser_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// login is a "fairlead login --browser" that runs, and the address that it gave.
type login struct {
	t    *testing.T
	link string
	cmd  *exec.Cmd
	rest *bytes.Buffer
	done chan struct{}
}

func startLogin(t *testing.T, program string, env []string, args ...string) *login {
	t.Helper()
	l := &login{t: t, cmd: exec.Command(program, append([]string{"login", "--browser"}, args...)...), rest: &bytes.Buffer{}, done: make(chan struct{})}
	l.cmd.Env = env
	out, err := l.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.cmd.Process.Kill(); <-l.done })
	r := bufio.NewReader(out)
	_, _ = r.ReadString('\n')
	link, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(link, "https://") {
		t.Errorf("%q %v", link, err)
	}
	l.link = strings.TrimSpace(link)
	go func() {
		defer close(l.done)
		_, _ = l.rest.ReadFrom(r)
		_ = l.cmd.Wait()
	}()
	return l
}

// ends waits until the program has ended, with this status and text.
func (l *login) ends(status int, says string) {
	l.t.Helper()
	<-l.done
	if got := l.cmd.ProcessState.ExitCode(); got != status || !strings.Contains(l.rest.String(), says) {
		l.t.Fatalf("exit %d, want %d with %q:\n%s", got, status, says, l.rest)
	}
}

// The program gets a session when its person presses the button, and nothing before or otherwise.
func TestProgramSignsInByBrowser(t *testing.T) {
	w := world(t)
	person(t, w, "anna")
	home := t.TempDir()
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "PATH=" + os.Getenv("PATH"), "FAIRLEAD_RELAY=" + w.Address, "FAIRLEAD_CA=" + w.CAFile}
	program := fairlead(t)
	run := func(args ...string) (string, error) {
		cmd := exec.Command(program, args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	saved := filepath.Join(home, "fairlead", "login.json")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, w)

	l := startLogin(t, program, env, "--idle", "30m")
	b.visit(l.link)
	b.sees("Sign in, and you are asked what the program gets.")
	b.shot("sign-in")
	if at := b.gives("location.href"); at != b.base+"/account/cli" {
		t.Errorf("the address still says %s", at)
	}
	b.signIn("anna", goodPassword)
	b.sees("The fairlead program on " + host + " asks to act as anna in workspace default.")
	b.sees("If you did not start it just now, press Refuse.")
	b.shot("consent")
	if _, err := os.Stat(saved); err == nil {
		t.Fatal("the program has a session before anybody said yes")
	}
	b.press("Refuse")
	b.sees("You refused")
	l.ends(77, "refused in the browser")
	if _, err := os.Stat(saved); err == nil {
		t.Fatal("the program has a session that was refused")
	}

	l = startLogin(t, program, env, "--idle", "30m")
	b.visit(l.link)
	b.sees("asks to act as anna")
	b.press("Allow")
	b.sees("The fairlead program is signed in.")
	b.shot("done")
	l.ends(0, "signed in to "+b.base+" as anna")
	if out, err := run("whoami"); err != nil || !strings.Contains(out, "anna") {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := run("sessions", "list"); err != nil || strings.Count(out, "ses_") != 2 || !strings.Contains(out, "fairlead/") || !strings.Contains(out, "Mozilla") {
		t.Errorf("%v %s", err, out)
	}

	// The browser is signed in as anna, and the program was started for somebody else.
	l = startLogin(t, program, env, "--user", "bert", "--workspace", "sales")
	b.visit(l.link)
	b.sees("It was started for bert")
	b.sees("It was started for workspace sales")
	b.press("Allow")
	b.sees("That did not work: the terminal says why.")
	l.ends(77, "a session of anna, not of bert")
	if out, err := run("sessions", "list"); err != nil || strings.Count(out, "ses_") != 2 {
		t.Errorf("%v %s", err, out)
	}

	// The page loaded again, or an address that somebody made up, asks for nothing.
	for _, at := range []string{"/account/cli", "/account/cli#port=80&state=x&challenge=y", "/account/cli#port=99999&state=aaaaaaaaaaaaaaaaaaaaaaaa&challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"} {
		b.visit(b.base + at)
		b.sees("This address is not whole")
	}
	// What the program says of its machine is text, and little of it.
	b.visit(b.base + "/account/cli#port=80&state=aaaaaaaaaaaaaaaaaaaaaaaa&challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&name=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E%E2%80%AE" + strings.Repeat("x", 500))
	b.sees("asks to act as anna")
	if n := b.gives("document.querySelector('.host').textContent"); len(n) > 64 || strings.ContainsAny(n, "<>=()\u202e") || b.gives("document.images.length") != "0" {
		t.Errorf("%q", n)
	}
	// Ending the program's session leaves the browser's.
	if out, err := run("logout"); err != nil || !strings.Contains(out, "the session has ended") {
		t.Errorf("%v %s", err, out)
	}
	b.visit(b.base + "/account/")
	b.sees("Your account")
	b.do("look", chromedp.WaitVisible(`//h2[normalize-space()="Sessions"]`))
}
