package browser_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
)

const goodPassword = "correct kettle battery fish"

// patience is how long a page may take until it shows what is waited for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a relay, without an agent's tunnel.
func world(t *testing.T, o ...testenv.Options) *testenv.World {
	t.Helper()
	if os.Getenv("FAIRLEAD_TEST_BROWSER") == "" {
		t.Skip("set FAIRLEAD_TEST_BROWSER to run it (make browser)")
	}
	return testenv.Bare(t, append(o, testenv.Options{})[0])
}

// invite makes a user and gives the one-time code.
func invite(t *testing.T, w *testenv.World, name string) client.UserCode {
	t.Helper()
	u, err := w.Client.CreateUser(t.Context(), client.NewUser{Name: name, Roles: []string{"operator"}})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// person makes a user who has a password.
func person(t *testing.T, w *testenv.World, name string) {
	t.Helper()
	u := invite(t, w, name)
	if err := w.NewClient(secret.Bytes{}).SetFirstPassword(t.Context(), client.FirstPassword{Workspace: "default", User: name, Code: u.Code, Password: goodPassword}); err != nil {
		t.Fatal(err)
	}
}

// browser is one tab of a browser of the test's own. What its console says beside refused requests is a fault: that is where a
// violation of the Content-Security-Policy stands.
type browser struct {
	t    *testing.T
	base string // of the relay
	ctx  context.Context

	mu   sync.Mutex // guards said
	said []string
}

func open(t *testing.T, w *testenv.World) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		t.Fatal("chromium is not installed; internal/testenv/servers/install.sh installs it on Debian")
	}
	profile, err := os.MkdirTemp("", "flbrowser")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(profile) })
	opts := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.WindowSize(1000, 1100)}
	for _, flag := range []string{"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "no-default-browser-check", "disable-background-networking", "disable-component-update",
		"disable-sync", "disable-extensions", "disable-dev-shm-usage", "hide-scrollbars", "mute-audio"} {
		opts = append(opts, chromedp.Flag(flag, true))
	}
	opts = append(opts, chromedp.Flag("password-store", "basic"),
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1"), // nobody else is asked for anything
		chromedp.Flag("ignore-certificate-errors-spki-list", pin(t, w.Address)))
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, end := chromedp.NewContext(alloc)
	b := &browser{t: t, base: "https://" + w.Address, ctx: ctx}
	err = chromedp.Do(ctx)
	if err == nil {
		err = chromedp.Listen(ctx, b.listen)
	}
	if err != nil {
		end()
		endAlloc()
		t.Fatal("start the browser:", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			b.shot("failed")
			text, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
			t.Logf("the page at the end: %v\n%s", err, text)
		}
		b.mu.Lock()
		for _, s := range b.said {
			t.Error("the browser's console:", s)
		}
		b.mu.Unlock()
		if err := chromedp.Cancel(ctx); err != nil {
			t.Log("close the browser:", err)
		}
		end()
		endAlloc()
	})
	return b
}

// pin is the digest of the relay's key: the browser takes its certificate, and no other that its system does not know.
func pin(t *testing.T, address string) string {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // what is shown is what is pinned
	conn, err := d.DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (b *browser) listen(ev any) {
	text := ""
	switch e := ev.(type) {
	case *cdplog.EventEntryAdded:
		if e.Entry.Source == cdplog.EntrySourceNetwork { // an answer of 400 and more, as the pages expect many
			return
		}
		text = fmt.Sprintf("%s %s: %s", e.Entry.Source, e.Entry.Level, e.Entry.Text)
	case *runtime.EventExceptionThrown:
		text = "exception: " + e.ExceptionDetails.Text
		if x := e.ExceptionDetails.Exception; x != nil {
			text += " " + x.Description
		}
	case *runtime.EventConsoleAPICalled:
		text = "console." + string(e.Type)
		for _, a := range e.Args {
			text += " " + string(a.Value) + a.Description
		}
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.said = append(b.said, text)
}

// do runs actions, each of which must succeed within patience.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

func (b *browser) visit(address string) {
	b.t.Helper()
	b.do("go to "+address, chromedp.Navigate("about:blank"), chromedp.Navigate(address))
}

// label finds an input by its visible label.
func label(text string) string {
	return `//label[normalize-space()="` + text + `"]/following-sibling::input`
}

// fill types into the field of a label, in place of what is there.
func (b *browser) fill(name, text string) {
	b.t.Helper()
	at := label(name)
	b.do("fill "+name, chromedp.WaitVisible(at), chromedp.Focus(at), chromedp.Evaluate[chromedp.Void]("document.activeElement.select()"), chromedp.KeyEvent(text))
}

// press clicks a button by its name.
func (b *browser) press(name string) {
	b.t.Helper()
	at := `//button[normalize-space()="` + name + `"][not(@disabled)]`
	b.do("press "+name, chromedp.WaitVisible(at), chromedp.Click(at))
}

// sees waits for a text on the page.
func (b *browser) sees(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf("see %q", text), func(ctx context.Context) bool {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body ? document.body.innerText : ''"))
		return err == nil && strings.Contains(got, text)
	})
}

// until asks again and again: a page that is left for another cannot be asked for a moment.
func (b *browser) until(what string, ok func(context.Context) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok(ctx) {
		select {
		case <-ctx.Done():
			b.t.Fatalf("did not come: %s", what)
		case <-tick.C:
		}
	}
}

// gives evaluates in the page.
func (b *browser) gives(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")"))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v", expression, err)
	}
	return text
}

func (b *browser) signIn(user, password string) {
	b.t.Helper()
	b.fill("User name", user)
	b.fill("Password", password)
	b.press("Sign in")
}

// shot photographs the page, if photographs are wanted.
func (b *browser) shot(name string) {
	dir := os.Getenv("FAIRLEAD_BROWSER_SHOTS")
	if dir == "" {
		return
	}
	var png []byte
	b.until("a photograph", func(ctx context.Context) (ok bool) {
		var err error
		png, err = chromedp.Run(ctx, chromedp.FullScreenshot(100))
		return err == nil
	})
	if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(b.t.Name(), "/", "-")+"-"+name+".png"), png, 0o600); err != nil {
		b.t.Error(err)
	}
}

// whole looks at what every page must have: each input a label, one heading of the first rank, no text that is cut sideways.
func (b *browser) whole() {
	b.t.Helper()
	faults := b.gives(`[
		...[...document.querySelectorAll('input:not([hidden])')].filter(i => i.labels.length === 0 && !i.ariaLabel).map(i => 'no label: ' + i.name),
		...[...document.querySelectorAll('input[type=password]')].filter(i => !/^(current|new)-password$/.test(i.autocomplete)).map(i => 'autocomplete: ' + i.name),
		...(document.querySelectorAll('h1').length === 1 ? [] : ['headings: ' + document.querySelectorAll('h1').length]),
		...(document.querySelectorAll('[role=alert]').length ? [] : ['nothing reads errors out']),
		...(document.documentElement.scrollWidth > document.documentElement.clientWidth ? ['wider than the window'] : []),
		...[...document.querySelectorAll('button')].filter(e => !e.textContent.trim()).map(() => 'a button without a name'),
	].join('; ')`)
	if faults != "" {
		b.t.Error("the page:", faults)
	}
}

// fairlead is the program, built unless FAIRLEAD_BIN names the folder that holds it.
func fairlead(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("FAIRLEAD_BIN"); dir != "" {
		return filepath.Join(dir, "fairlead")
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir, "./relay/cmd/fairlead")
	cmd.Dir = filepath.Join("..", "..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build fairlead: %v\n%s", err, out)
	}
	return filepath.Join(dir, "fairlead")
}
