package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Limits of signing in with the browser: how long somebody has to say yes, and how many requests that are not the browser's answer
// are refused before it is given up.
const (
	browserTime     = 5 * time.Minute
	browserStrays   = 100
	browserLastTime = 2 * time.Second // to take the answer
	browserSettle   = 5 * time.Second // from the first opening of the address until an answer is taken: a second one shows by then
)

// handOver waits on a loopback address for what the browser brings (RFC 8252, 7.3), and begins the session with it.
type handOver struct {
	host     string // 127.0.0.1:PORT, the only name that it answers to
	state    string // of this sign-in: whoever does not know it was not sent by our page
	verifier string // RFC 7636
	begin    string // path that leads the browser to page, once
	page     string // set before Run
	take     func(ctx context.Context, t client.TakeOver) (client.SignedIn, error)

	first  chan struct{} // holds a token: whoever takes it is led to page
	opened atomic.Int64  // when that was, Unix milliseconds
	one    chan struct{} // holds a token: whoever takes it brings the answer
	strays chan struct{} // as many tokens as strays are refused
	done   chan handed
	life   context.Context // of Run: the browser may close its page as soon as it has brought the answer
}

type handed struct {
	session client.SignedIn
	err     error
}

func newHandOver(host string, take func(context.Context, client.TakeOver) (client.SignedIn, error)) *handOver {
	h := &handOver{host: host, state: rand.Text() + rand.Text(), verifier: rand.Text() + rand.Text(), begin: "/begin/" + rand.Text(), take: take,
		first: make(chan struct{}, 1), one: make(chan struct{}, 1), strays: make(chan struct{}, browserStrays), done: make(chan handed, 1)}
	h.first <- struct{}{}
	h.one <- struct{}{}
	for range browserStrays {
		h.strays <- struct{}{}
	}
	return h
}

// link is the page of the relay that asks whether this program may have a session. What stands behind # is sent to nobody.
func (h *handOver) link(relay string, more url.Values) string {
	sum := sha256.Sum256([]byte(h.verifier))
	_, port, _ := net.SplitHostPort(h.host)
	more.Set("port", port)
	more.Set("state", h.state)
	more.Set("challenge", base64.RawURLEncoding.EncodeToString(sum[:]))
	return relay + "/account/cli#" + more.Encode()
}

// opens is the address that a browser is started with. Other users of the machine see what programs are started with, and whoever has
// the link can bring an answer that is a session of their own: so it is not the link, but leads there once,
// and an answer waits until a browser that comes second would have been seen.
func (h *handOver) opens() string { return "http://" + h.host + h.begin }

// ServeHTTP implements http.Handler. It takes one answer; whatever is not it, is refused and changes nothing.
func (h *handOver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for name, value := range map[string]string{"Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
		"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "Connection": "close"} {
		w.Header().Set(name, value)
	}
	stray := func(status int, text string) {
		select {
		case <-h.strays:
		default:
			h.end(client.SignedIn{}, &protocol.Error{Code: protocol.CodeDenied, Message: "too many requests came that were not the browser's answer", Hint: "something on this machine disturbs the sign-in; try again, or use fairlead login --user NAME"})
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text+"\n")
	}
	q := r.URL.Query()
	code, refused := q.Get("code"), q.Get("error")
	switch {
	case r.Host != h.host: // a name that was made to lead here is a page's of somebody else
		stray(http.StatusMisdirectedRequest, "This is not the address that was given.")
		return
	case r.URL.Path == h.begin && r.Method == http.MethodGet:
		select {
		case <-h.first:
			h.opened.Store(time.Now().UnixMilli())
			http.Redirect(w, r, h.page, http.StatusFound)
		default:
			stray(http.StatusGone, "This address was opened already. Nothing was done.")
			h.end(client.SignedIn{}, &protocol.Error{Code: protocol.CodeDenied, Message: "the address that the browser was started with was opened twice, the second time perhaps by somebody else on this machine",
				Hint: "nothing was given; try again, or use fairlead login --user NAME"})
		}
		return
	case r.URL.Path != "/":
		stray(http.StatusNotFound, "There is nothing here.")
		return
	case r.Method != http.MethodGet:
		stray(http.StatusMethodNotAllowed, "Only a browser's answer is taken.")
		return
	case len(q["state"]) != 1 || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(h.state)) != 1:
		stray(http.StatusForbidden, "This is not the answer to what this program asked. Nothing was done.")
		return
	case len(q["code"])+len(q["error"]) != 1 || code+refused == "":
		stray(http.StatusBadRequest, "The answer makes no sense. Nothing was done.")
		return
	}
	select {
	case <-h.one:
	default:
		stray(http.StatusGone, "The answer was taken already.")
		return
	}
	if refused != "" {
		_, _ = io.WriteString(w, "You refused: the fairlead program gets nothing. This page can be closed.\n")
		h.end(client.SignedIn{}, &protocol.Error{Code: protocol.CodeDenied, Message: "it was refused in the browser", Hint: "nothing was given"})
		return
	}
	if at := h.opened.Load(); at != 0 {
		settled := time.NewTimer(time.Until(time.UnixMilli(at).Add(browserSettle)))
		defer settled.Stop()
		select {
		case <-settled.C:
		case <-h.life.Done():
			stray(http.StatusGone, "The sign-in has ended.")
			return
		}
	}
	s, err := h.take(h.life, client.TakeOver{Code: code, Verifier: h.verifier})
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "That did not work: the terminal says why. This page can be closed.\n")
	} else {
		_, _ = io.WriteString(w, "The fairlead program is signed in. This page can be closed.\n")
	}
	h.end(s, err)
}

func (h *handOver) end(s client.SignedIn, err error) {
	select {
	case h.done <- handed{s, err}:
	default: // it has ended
	}
}

// Run serves on ln until the answer came, ctx ends or most has passed, and closes it.
func (h *handOver) Run(ctx context.Context, ln net.Listener, most time.Duration) (client.SignedIn, error) {
	var stop context.CancelFunc
	h.life, stop = context.WithCancel(ctx)
	defer stop()
	srv := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, MaxHeaderBytes: 32 << 10}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	late := time.NewTimer(most)
	defer late.Stop()
	var got handed
	ended := false
	select {
	case got = <-h.done:
	case <-ctx.Done():
		got.err = ctx.Err()
	case <-late.C:
		got.err = &protocol.Error{Code: protocol.CodeTimeout, Message: fmt.Sprintf("nobody said yes in the browser within %v", most), Hint: "try again; without a browser on this machine: fairlead login --user NAME"}
	case got.err = <-served:
		ended = true
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), browserLastTime)
	defer cancel()
	_ = srv.Shutdown(last) // the browser takes what it was told
	_ = srv.Close()
	if !ended {
		<-served
	}
	return got.session, got.err
}

// byBrowser signs in by the relay's account page.
func (k *loginCommand) byBrowser(ctx context.Context, t *cli.Term, r *relayFlags, c *client.Client, l login) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the browser: %w", err)
	}
	h := newHandOver(ln.Addr().String(), func(ctx context.Context, o client.TakeOver) (client.SignedIn, error) {
		s, err := c.TakeOver(ctx, o)
		if err != nil {
			return s, err
		}
		if err := k.isWanted(r, s); err != nil {
			return client.SignedIn{}, errors.Join(err, endSession(ctx, r, l, s))
		}
		return s, nil
	})
	more := url.Values{}
	if name, err := os.Hostname(); err == nil {
		more.Set("name", name)
	}
	for name, value := range map[string]string{"user": k.User, "workspace": r.Workspace} {
		if value != "" {
			more.Set(name, value)
		}
	}
	for name, seconds := range map[string]int64{"idle_seconds": k.Idle.seconds(), "life_seconds": k.For.seconds()} {
		if seconds != 0 {
			more.Set(name, strconv.FormatInt(seconds, 10))
		}
	}
	h.page = h.link(c.Relay(), more)
	if openBrowser(h.opens()) {
		t.Notef("a browser opens; if none does, open this address on this machine:\n%s\n", h.page)
	} else {
		t.Notef("open this address in a browser on this machine:\n%s\n", h.page)
	}
	s, err := h.Run(ctx, ln, browserTime)
	if err != nil {
		return err // nothing is saved
	}
	l.Workspace = s.Workspace
	return k.saved(t, c, l, s)
}

// isWanted refuses a session of somebody else, or elsewhere, than was asked for: the browser may be signed in as another.
func (k *loginCommand) isWanted(r *relayFlags, s client.SignedIn) error {
	switch {
	case k.User != "" && !strings.EqualFold(strings.TrimSpace(k.User), s.User):
		return &protocol.Error{Code: protocol.CodeDenied, Message: fmt.Sprintf("the browser gave a session of %s, not of %s", cli.Clean(s.User), cli.Clean(k.User)), Hint: "nothing was saved; press Use another account there"}
	case r.Workspace != "" && r.Workspace != s.Workspace && !strings.HasPrefix(r.Workspace, "ws_"):
		return &protocol.Error{Code: protocol.CodeDenied, Message: fmt.Sprintf("the browser gave a session of workspace %s, not of %s", cli.Clean(s.Workspace), cli.Clean(r.Workspace)), Hint: "nothing was saved; press Use another account there"}
	}
	return nil
}

// endSession ends a session that is not wanted.
func endSession(ctx context.Context, r *relayFlags, l login, s client.SignedIn) error {
	conf := client.Config{Proxy: r.Proxy, UserAgent: userAgent(), Token: secret.FromString(s.Session)}
	if err := l.fill(&conf); err != nil {
		return err
	}
	c, err := client.New(conf)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.SignOut(ctx)
}

// openBrowser opens the address with what the system has for it, and tells whether there is something. The program that is started
// may live for as long as the browser does, so nobody waits for it.
func openBrowser(link string) bool {
	var args []string
	switch runtime.GOOS {
	case "windows":
		args = []string{"rundll32", "url.dll,FileProtocolHandler", link}
	case "darwin":
		args = []string{"open", link}
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return false
		}
		args = []string{"xdg-open", link}
	}
	cmd := exec.Command(args[0], args[1:]...)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "FAIRLEAD_") { // a token in the environment is not the browser's
			cmd.Env = append(cmd.Env, v)
		}
	}
	if cmd.Start() != nil {
		return false
	}
	return cmd.Process.Release() == nil
}
