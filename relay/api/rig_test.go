package api_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/api"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
	"github.com/fairleadhq/fairlead/relay/gateway"
	"github.com/fairleadhq/fairlead/relay/hub"
	"github.com/fairleadhq/fairlead/relay/mail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inside is an address on both workspaces' allowlists.
const inside = "192.0.2.10:40000"

// rig is an API on a state of its own, with two workspaces: default and other.
type rig struct {
	api       *api.API
	hub       *hub.Hub
	logs      *audit.Logs
	dir       *directory.Directory
	people    *authn.People
	dispatch  *dispatch.Dispatcher
	own       *directory.Workspace
	other     *directory.Workspace
	admin     authz.Principal       // who owns the workspace
	token     map[authz.Role]string // of the own workspace
	foreign   string                // of an admin of the other
	proxies   []netip.Prefix
	stateDir  string
	conn      string // an object of the own workspace …
	otherConn string // … and of the other
	t         testing.TB
}

// peopleConfig are the limits of signing in that a rig has.
var peopleConfig = authn.DefaultPeopleConfig

// rigMail is how rigs send e-mail; nil: not at all.
var rigMail *mail.Outbox

func newRig(t testing.TB, proxies ...string) *rig {
	t.Helper()
	ctx := context.Background()
	state := t.TempDir()
	dc := directory.DefaultConfig(state)
	dc.PasskeyID = passkeyID
	first, err := directory.Init(ctx, directory.InitConfig{Config: dc, Relay: directory.Relay{Name: "relay", Addresses: []string{"localhost:1"}},
		Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	g := &rig{t: t, stateDir: state, token: map[authz.Role]string{}}
	g.dir, err = directory.Open(ctx, dc)
	must(t, err)
	t.Cleanup(func() { g.dir.Close() })
	_, err = g.dir.CreateWorkspace(ctx, "other")
	must(t, err)
	must(t, g.dir.SetAllowlist(ctx, "other", []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, netip.Addr{}, true))
	for _, ws := range []string{"default", "other"} {
		if _, err := g.dir.CreateGroup(ctx, ws, "site"); err != nil {
			t.Fatal(err)
		}
		c, err := g.dir.CreateConnection(ctx, ws, "site", directory.ConnectionBody{Name: ws + "-shop", Profile: "shop"})
		must(t, err)
		if g.otherConn = c.ID; ws == "default" {
			g.conn = c.ID
		}
	}
	g.own, err = g.dir.Snapshot().Workspace("default")
	must(t, err)
	g.other, err = g.dir.Snapshot().Workspace("other")
	must(t, err)
	g.admin = g.own.Principal(first.Principal).Principal
	g.token[authz.Owner] = first.Token.ExposeString()
	for _, r := range []authz.Role{authz.Admin, authz.Operator, authz.Analyst} {
		g.token[r] = g.newToken("a "+string(r), time.Hour, r)
	}
	_, text, err := g.dir.CreateAdminToken(ctx, "other", "theirs", time.Hour)
	must(t, err)
	g.foreign = text.ExposeString()

	_, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	logs := &audit.Logs{Config: audit.Config{Dir: filepath.Join(t.TempDir(), "audit"), Source: "rel_test", Key: key}, Seal: g.dir.SealEvent}
	t.Cleanup(func() { logs.Close() })
	for _, p := range proxies {
		g.proxies = append(g.proxies, netip.MustParsePrefix(p))
	}
	who, err := authn.New(authn.DefaultConfig())
	must(t, err)
	g.people, err = authn.NewPeople(g.dir, withPasskeys(t, peopleConfig()))
	must(t, err)
	h := hub.New(hub.Config{})
	g.hub, g.logs = h, logs
	d := &dispatch.Dispatcher{Hub: h, Logger: slog.New(slog.DiscardHandler), Record: func(ev audit.Event) (*audit.Ticket, error) {
		rec, err := logs.Recorder(ev.Workspace)
		if err != nil {
			return nil, err
		}
		return rec.Record(ev)
	}}
	g.dispatch = d
	gc := gateway.DefaultConfig()
	gc.Addresses, gc.Directory, gc.Dispatch = []gateway.Range{{Addr: netip.MustParseAddr("127.0.0.1"), First: 1024, Last: 65535}}, g.dir, d
	gateways := gateway.New(gc)
	gctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); gateways.Run(gctx) }()
	t.Cleanup(func() { stop(); <-done })
	g.api = api.New(api.Config{Domains: []string{"*.apps.example"}, Directory: g.dir, Authn: who, People: g.people, Hub: h, Dispatch: d, Gateways: gateways, Log: logs.Get, LogKey: key.Public().(ed25519.PublicKey),
		JoinToken: func(s secret.Bytes) (string, error) { return "flj_" + s.ExposeString(), nil }, TrustedProxies: g.proxies, Version: "test", Mail: rigMail, Logger: slog.New(slog.DiscardHandler)})
	return g
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (g *rig) newToken(name string, life time.Duration, r authz.Role) string {
	g.t.Helper()
	_, text, err := g.dir.CreateToken(context.Background(), g.admin, "default", directory.NewToken{Name: name, Roles: []authz.Role{r}, Life: life})
	must(g.t, err)
	return text.ExposeString()
}

// answer is what a request got.
type answer struct {
	status  int
	header  http.Header
	body    string
	problem client.Problem // of an error
}

// shape is the answer without what differs from request to request.
func (a answer) shape() string {
	p := a.problem
	p.RequestID = ""
	b, _ := json.Marshal(p)
	return string(b)
}

// ask sends a request from an address on the allowlist.
func (g *rig) ask(method, path, token, body string, edit ...func(*http.Request)) answer {
	g.t.Helper()
	var rd io.Reader = http.NoBody
	if body != "" {
		rd = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, "https://relay.example"+client.BasePath+path, rd)
	r.RemoteAddr = inside
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, f := range edit {
		f(r)
	}
	return g.serve(r)
}

func (g *rig) serve(r *http.Request) answer {
	g.t.Helper()
	w := httptest.NewRecorder()
	g.api.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), body: w.Body.String()}
	if a.status >= 400 {
		if err := json.Unmarshal(w.Body.Bytes(), &a.problem); err != nil || a.header.Get("Content-Type") != client.ContentProblem {
			g.t.Fatalf("%s %s: status %d is no problem: %q %s, %v", r.Method, r.URL.Path, a.status, a.header.Get("Content-Type"), a.body, err)
		}
	}
	return a
}
