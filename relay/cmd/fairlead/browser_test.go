package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

// asked is a "login --browser" that waits, and what its address says.
type asked struct {
	t    *testing.T
	link *url.URL
	page url.Values
	end  chan result
}

// askBrowser runs where no browser opens.
func askBrowser(t *testing.T, args ...string) *asked {
	t.Helper()
	return askBrowserOn(t, "", args...)
}

func askBrowserOn(t *testing.T, display string, args ...string) *asked {
	t.Helper()
	t.Setenv("DISPLAY", display)
	t.Setenv("WAYLAND_DISPLAY", "")
	said, errs := io.Pipe()
	var out strings.Builder
	a := &asked{t: t, end: make(chan result, 1)}
	lines := make(chan string, 1)
	rest := make(chan string, 1)
	go func() {
		r := bufio.NewReader(said)
		_, _ = r.ReadString('\n')
		link, _ := r.ReadString('\n')
		lines <- strings.TrimSpace(link)
		more, _ := io.ReadAll(r)
		rest <- string(more)
	}()
	go func() {
		status := cli.Run(program(), append([]string{"login", "--browser"}, args...), strings.NewReader(""), &out, errs)
		_ = errs.Close()
		a.end <- result{status, out.String(), <-rest}
	}()
	select {
	case link := <-lines:
		u, err := url.Parse(link)
		if err != nil || u.Scheme != "https" || u.Path != "/account/cli" || u.RawQuery != "" {
			t.Fatalf("%q %v", link, err)
		}
		if a.page, err = url.ParseQuery(u.EscapedFragment()); err != nil {
			t.Fatal(err)
		}
		a.link = u
	case <-time.After(30 * time.Second):
		t.Fatal("no address came")
	}
	return a
}

// bring is what a browser does that was sent to the program.
func (a *asked) bring(query url.Values, edit ...func(*http.Request)) (int, string) {
	a.t.Helper()
	r, err := http.NewRequestWithContext(a.t.Context(), http.MethodGet, "http://127.0.0.1:"+a.page.Get("port")+"/?"+query.Encode(), http.NoBody)
	if err != nil {
		a.t.Fatal(err)
	}
	for _, f := range edit {
		f(r)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") || resp.Header.Get("Cache-Control") != "no-store" {
		a.t.Error(err, resp.Header)
	}
	return resp.StatusCode, string(b)
}

func TestLoginByBrowser(t *testing.T) {
	home(t)
	r := clienttest.New(t)
	at := []string{"--relay", r.Host, "--ca", r.CAFile}
	path, err := loginFile()
	if err != nil {
		t.Fatal(err)
	}
	noLogin := func() {
		t.Helper()
		if _, err := os.Stat(path); err == nil {
			t.Error("something was saved")
		}
	}

	a := askBrowser(t, append(at, "--for", "8h", "--idle", "30m", "--user", "Anna", "--workspace", "default")...)
	for name, want := range map[string]int{"state": 52, "challenge": 43} {
		if len(a.page.Get(name)) != want {
			t.Errorf("%s: %q", name, a.page.Get(name))
		}
	}
	if a.page.Get("life_seconds") != "28800" || a.page.Get("idle_seconds") != "1800" || a.page.Get("user") != "Anna" || a.page.Get("workspace") != "default" || a.link.Scheme+"://"+a.link.Host != r.URL {
		t.Error(a.link)
	}
	good := url.Values{"code": {clienttest.HandOver}, "state": a.page["state"]}
	with := func(change url.Values) url.Values {
		v := url.Values{}
		for _, from := range []url.Values{good, change} {
			for name, value := range from {
				v[name] = value
			}
		}
		return v
	}
	for _, c := range []struct {
		what   string
		status int
		query  url.Values
		edit   func(*http.Request)
	}{
		{"a wrong state", 403, with(url.Values{"state": {strings.Repeat("A", 52)}}), nil},
		{"no state", 403, with(url.Values{"state": nil}), nil},
		{"two states", 403, with(url.Values{"state": {a.page.Get("state"), "x"}}), nil},
		{"a name that leads here (DNS rebinding)", 421, good, func(q *http.Request) { q.Host = "rebound.example:" + a.page.Get("port") }},
		{"localhost", 421, good, func(q *http.Request) { q.Host = "localhost:" + a.page.Get("port") }},
		{"another port", 421, good, func(q *http.Request) { q.Host = "127.0.0.1:1" }},
		{"no port", 421, good, func(q *http.Request) { q.Host = "127.0.0.1" }},
		{"another path", 404, good, func(q *http.Request) { q.URL.Path = "/favicon.ico" }},
		{"a form", 405, good, func(q *http.Request) { q.Method = http.MethodPost }},
		{"nothing", 400, with(url.Values{"code": nil}), nil},
		{"both", 400, with(url.Values{"error": {"access_denied"}}), nil},
		{"two codes", 400, with(url.Values{"code": {clienttest.HandOver, "x"}}), nil},
	} {
		edit := []func(*http.Request){}
		if c.edit != nil {
			edit = append(edit, c.edit)
		}
		if status, text := a.bring(c.query, edit...); status != c.status || text == "" {
			t.Errorf("%s: %d %s", c.what, status, text)
		}
	}
	noLogin()
	if n := r.Requested("POST /api/v1/sign-in/hand-over"); n != 0 {
		t.Errorf("%d codes were sent on", n)
	}
	if status, text := a.bring(good); status != 200 || !strings.Contains(text, "is signed in") {
		t.Errorf("%d %s", status, text)
	}
	(<-a.end).want(t, 0, "", "signed in to "+r.URL+" as anna")
	var sent client.TakeOver
	if err := json.Unmarshal([]byte(r.LastBody()), &sent); err != nil {
		t.Fatal(err)
	}
	h := &handOver{host: "127.0.0.1:1", verifier: sent.Verifier}
	if sent.Code != clienttest.HandOver || !strings.Contains(h.link("", url.Values{}), "challenge="+a.page.Get("challenge")) || sent.Verifier == a.page.Get("challenge") {
		t.Errorf("%+v is not what the challenge %s was made of", sent, a.page.Get("challenge"))
	}
	run("whoami").want(t, 0, "admin", "")
	run("logout").want(t, 0, "", "the session has ended")

	// It has closed: the port is nobody's.
	if conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", "127.0.0.1:"+a.page.Get("port")); err == nil {
		_ = conn.Close()
		t.Error("it listens still")
	}

	a = askBrowser(t, at...)
	if status, text := a.bring(url.Values{"error": {"access_denied"}, "state": a.page["state"]}); status != 200 || !strings.Contains(text, "You refused") {
		t.Errorf("%d %s", status, text)
	}
	(<-a.end).want(t, 77, "", "refused in the browser")
	noLogin()

	a = askBrowser(t, at...)
	if status, text := a.bring(url.Values{"code": {"flh_other"}, "state": a.page["state"]}); status != 502 || !strings.Contains(text, "the terminal says why") {
		t.Errorf("%d %s", status, text)
	}
	(<-a.end).want(t, 77, "", "does not let you in")
	noLogin()

	for want, args := range map[string][]string{"a session of anna, not of bert": {"--user", "bert"}, "workspace default, not of sales": {"--workspace", "sales"}} {
		before := r.Requested("POST /api/v1/sign-out")
		a = askBrowser(t, append(args, at...)...)
		if status, text := a.bring(url.Values{"code": {clienttest.HandOver}, "state": a.page["state"]}); status != 502 || !strings.Contains(text, "the terminal says why") {
			t.Errorf("%d %s", status, text)
		}
		(<-a.end).want(t, 77, "", want)
		noLogin()
		if r.Requested("POST /api/v1/sign-out") != before+1 {
			t.Error("the session that is not wanted was left")
		}
	}
	run(append([]string{"login", "--browser", "--first", "--user", "anna"}, at...)...).want(t, 64, "", "--first goes with")
	run(append([]string{"login", "--for", "8h"}, at...)...).want(t, 64, "", "--browser")
}

// Whoever does not answer, or only disturbs, is not waited for.
func TestBrowserIsNotWaitedForWithoutEnd(t *testing.T) {
	serve := func(ctx context.Context, most time.Duration, meanwhile func(h *handOver)) error {
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h := newHandOver(ln.Addr().String(), func(context.Context, client.TakeOver) (client.SignedIn, error) {
			t.Error("a code is sent on")
			return client.SignedIn{}, nil
		})
		meanwhile(h)
		_, err = h.Run(ctx, ln, most)
		return err
	}
	if err := serve(t.Context(), time.Millisecond, func(*handOver) {}); client.CodeOf(err) != protocol.CodeTimeout {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := serve(ctx, time.Minute, func(*handOver) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	err := serve(t.Context(), time.Minute, func(h *handOver) {
		for range browserStrays + 1 {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.host+"/?state=x&code=y", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			h.ServeHTTP(&nowhere{http.Header{}}, r)
		}
	})
	if client.CodeOf(err) != protocol.CodeDenied {
		t.Error(err)
	}
}

type nowhere struct{ h http.Header }

func (n *nowhere) Header() http.Header         { return n.h }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(int)             {}
