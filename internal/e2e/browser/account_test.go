package browser_test

import (
	"context"
	"encoding/base32"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/totp"
)

// F18: an invitation by link sets a password once; its code is in no address, history or store of the browser after that.
func TestFirstSignInByLink(t *testing.T) {
	w := world(t)
	u := invite(t, w, "anna")
	link, err := client.FirstLink(w.Address, "default", u.Name, u.Code)
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, w)
	b.visit(link)
	b.sees("Choose your password")
	if at := b.gives("location.href"); at != b.base+"/account/first" {
		t.Errorf("the address still says %s", at)
	}
	if kept := b.gives("JSON.stringify([history.state, localStorage.length, sessionStorage.length, document.cookie, document.documentElement.outerHTML.includes('fli_')])"); kept != `[null,0,0,"",false]` {
		t.Errorf("the browser keeps %s", kept)
	}
	if b.gives("document.activeElement.name") != "new-password" {
		t.Error("the first field that is empty has not the focus")
	}
	b.whole()
	b.shot("first")
	b.press("Set the password")
	b.sees("New password is missing.")
	b.fill("New password", "password1")
	b.fill("New password again", "password2")
	b.press("Set the password")
	b.sees("The two passwords are not the same.")
	b.fill("New password again", "password1")
	b.press("Set the password")
	b.sees("fewer than 15 characters") // the relay's own word
	b.shot("refused")
	b.fill("New password", goodPassword)
	b.fill("New password again", goodPassword)
	b.press("Set the password")
	b.sees("Your account")
	b.sees("anna")
	if at := b.gives("location.href + document.cookie"); at != b.base+"/account/" {
		t.Errorf("at %s, with a cookie that scripts see", at)
	}
	b.visit(link)
	b.fill("New password", goodPassword+" again")
	b.fill("New password again", goodPassword+" again")
	b.press("Set the password")
	b.sees("does not let you in")
}

// Everything about the own account: a password, a second factor with its QR code, recovery codes, sessions, signing out.
func TestAccountInTheBrowser(t *testing.T) {
	w := world(t)
	person(t, w, "anna")
	b := open(t, w)
	b.visit(b.base + "/account/")
	b.sees("Sign in")
	b.whole()
	b.shot("sign-in")
	b.signIn("anna", "wrong kettle")
	b.sees("does not let you in")
	if b.gives(`document.querySelector('[role=alert]').textContent.length > 0`) != "true" {
		t.Error("the refusal is read out by nobody")
	}
	b.fill("Password", goodPassword)
	b.do("press Enter", chromedp.KeyEvent(kb.Enter))
	b.sees("Your account")
	b.sees("Chrome ")
	b.whole()
	b.shot("account")

	b.press("Add an authenticator app")
	b.sees("Scan this")
	text := b.gives("document.getElementById('secret').textContent")
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(b.gives("document.querySelector('svg.qr path').getAttribute('d')")); n < 3000 {
		t.Errorf("a QR code of %d characters", n)
	}
	b.whole()
	b.shot("second-factor")
	b.fill("Code that the app shows", "000000")
	b.press("Put it in force")
	b.sees("not the right answer")
	b.fill("Code that the app shows", totp.Code(secret.New(raw), totp.StepAt(time.Now())))
	b.press("Put it in force")
	b.sees("Each recovery code counts once")
	codes := strings.Fields(b.gives("document.getElementById('recovery').textContent"))
	if len(codes) != 10 {
		t.Fatal(len(codes), "recovery codes")
	}
	b.shot("recovery-codes")
	b.press("I have kept them")
	b.sees("Recovery codes left: 10")

	b.fill("Present password", goodPassword)
	b.fill("New password", goodPassword+" two")
	b.fill("New password again", goodPassword+" two")
	b.press("Change the password")
	b.sees("The password is changed")
	b.press("Sign out")
	b.sees("You are signed out.")
	b.signIn("anna", goodPassword+" two")
	b.sees("Now the code of your second factor")
	b.shot("code")
	b.fill("Code", codes[0])
	b.press("Sign in")
	b.sees("Recovery codes left: 9")

	other, err := w.NewClient(secret.Bytes{}).SignIn(t.Context(), client.SignIn{Workspace: "default", User: "anna", Password: goodPassword + " two", Code: codes[1]})
	if err != nil {
		t.Fatal(err)
	}
	b.visit(b.base + "/account/")
	b.sees("fairlead-client")
	b.shot("sessions")
	b.press("End all others")
	b.sees("Your other sessions have ended.")
	if _, err := w.NewClient(secret.FromString(other.Session)).Whoami(t.Context()); err == nil {
		t.Error("the other session lives")
	}
	b.press("Remove")
	b.press("Remove it now")
	b.sees("The second factor is removed")
	b.sees("Add an authenticator app")
}

// What the workspace demands is said, and the session that ended meanwhile leads back to the form.
func TestPageSaysWhatIsMissing(t *testing.T) {
	w := world(t)
	person(t, w, "anna")
	b := open(t, w)
	b.visit(b.base + "/account/#workspace=default&user=anna")
	b.fill("Password", goodPassword)
	b.press("Sign in")
	b.sees("Your account")
	if _, err := w.Client.SetSignInPolicy(t.Context(), client.SignInPolicy{SecondFactor: true}); err != nil {
		t.Fatal(err)
	}
	b.visit(b.base + "/account/")
	b.sees("The workspace demands a second factor")
	b.do("a narrow screen in the dark", chromedp.EmulateViewport(360, 740), chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
		return err
	}))
	b.whole()
	b.shot("narrow-dark")
	if err := w.Client.EndSessionsOf(t.Context(), "anna"); err != nil {
		t.Fatal(err)
	}
	b.press("Add an authenticator app")
	b.sees("The session has ended.")
	b.whole()
	b.shot("narrow-dark-sign-in")
}

// F16: whoever proved nothing for long is asked for a proof in a dialogue that the keyboard alone gets through, and what was wanted
// is done then.
func TestStaleSessionIsAskedForAProof(t *testing.T) {
	t.Parallel() // it waits for a minute
	w := world(t)
	person(t, w, "anna")
	if _, err := w.Client.SetSignInPolicy(t.Context(), client.SignInPolicy{StepUpSeconds: 60}); err != nil {
		t.Fatal(err)
	}
	b := open(t, w)
	b.visit(b.base + "/account/")
	b.signIn("anna", goodPassword)
	b.sees("Your account")
	stale := time.NewTimer(61 * time.Second)
	defer stale.Stop()
	<-stale.C
	b.press("Add an authenticator app")
	b.sees("Prove that it is you")
	b.whole()
	b.shot("proof")
	if b.gives("document.activeElement.name") != "password" {
		t.Error("the focus is not in the dialogue")
	}
	b.do("press Escape", chromedp.KeyEvent(kb.Escape), chromedp.WaitNotPresent(chromedp.CSS("dialog")))
	if b.gives("document.activeElement.textContent") != "Add an authenticator app" {
		t.Error("the focus is not where it was")
	}
	b.do("press Enter", chromedp.KeyEvent(kb.Enter))
	b.sees("Prove that it is you")
	b.do("type", chromedp.KeyEvent("wrong kettle"+kb.Enter))
	b.sees("not the right answer")
	b.do("clear and type", chromedp.Evaluate[chromedp.Void]("document.activeElement.select()"), chromedp.KeyEvent(goodPassword+kb.Enter))
	b.sees("Scan this")
}
