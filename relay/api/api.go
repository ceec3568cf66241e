package api

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
	"github.com/fairleadhq/fairlead/relay/gateway"
	"github.com/fairleadhq/fairlead/relay/hub"
	"github.com/fairleadhq/fairlead/relay/mail"
)

// Limits of a request before it is known who asks.
const (
	maxAdminBody     = 1 << 20
	maxAllowlistBody = 5 << 20 // 100,000 prefixes of IPv6
	maxDepth         = 64      // of a JSON body
)

// Config is what the API stands on.
type Config struct {
	Directory *directory.Directory
	Authn     *authn.Authenticator
	People    *authn.People
	Hub       *hub.Hub
	Dispatch  *dispatch.Dispatcher
	Gateways  *gateway.Manager
	// Log gives the audit log of a workspace.
	Log func(workspace string) (*audit.Log, error)
	// LogKey verifies the checkpoints of every log.
	LogKey ed25519.PublicKey
	// JoinToken makes the text of a join token around its secret.
	JoinToken func(secret.Bytes) (string, error)
	// TrustedProxies may name the caller's address in X-Forwarded-For; empty trusts nobody.
	TrustedProxies []netip.Prefix
	// Tunnel takes a request for a WebSocket from an agent, whose address is source, or gives the error to answer. It
	// judges for itself: no token is asked for on its route. nil: there is no such route.
	Tunnel func(w http.ResponseWriter, r *http.Request, source netip.Addr) error
	// Pages serves the account pages, below /account/; nil: there are none.
	Pages http.Handler
	// Domains are the names that workspaces may make their own: each a host, or "*." and what it must end with. Empty: none.
	Domains []string
	// HTTP10 lets HTTP/1.0 in, and DomainHTTP10 under workspaces' own names, too.
	HTTP10, DomainHTTP10 bool
	// Certificate finds the certificate that callers of a name are shown, if it is for that name; nil: there are none.
	Certificate func(name string) *x509.Certificate
	// Mail takes e-mail to people; nil: there is none.
	Mail    *mail.Outbox
	Version string
	Logger  *slog.Logger
	// PageSize is how many items of a list an answer has when nothing is asked for, MaxPage how many at most; 0: 100 and 1000.
	PageSize, MaxPage int
	// RepeatLife is how long an idempotency key is remembered, RepeatMost how many of one principal; 0: 24 h and 10,000.
	RepeatLife time.Duration
	RepeatMost int
	// BodyRate is how many bytes a second of an upload a caller sends at least, over the minutes in which it is waited for; 0: 1024.
	BodyRate int
}

// API serves /api/v1. It is safe for concurrent use; Run must run beside it.
type API struct {
	cfg      Config
	mux      *http.ServeMux
	huma     huma.API
	open     *visits
	routes   []Route
	things   []thing
	refusals []refusal              // what the document tells of
	repeats  sync.Map               // of workspace, principal and key: requests under an idempotency key that are under way
	spec     func() ([]byte, error) // the OpenAPI document, encoded once: anybody may ask for it
}

// Route is a row of the API: what is asked and which action guards it. Open routes have no action.
type Route struct {
	Method, Path, Action string
	Session              bool // it is about a person's own account, and wants a session
	Anonymous            bool // it wants nothing
	Fresh                bool // the session must have proven itself not long ago, whatever the action
}

// New builds the API.
func New(cfg Config) *API {
	if cfg.PageSize == 0 {
		cfg.PageSize = defaultPage
	}
	if cfg.RepeatLife == 0 {
		cfg.RepeatLife = defaultRepeatLife
	}
	if cfg.RepeatMost == 0 {
		cfg.RepeatMost = defaultRepeatMost
	}
	if cfg.BodyRate == 0 {
		cfg.BodyRate = defaultBodyRate
	}
	if cfg.MaxPage == 0 {
		cfg.MaxPage = defaultMost
	}
	a := &API{cfg: cfg, mux: http.NewServeMux(), open: newVisits(), things: things(), refusals: refusals()}
	hc := huma.DefaultConfig("Fairlead", cfg.Version)
	hc.Info.Description = "Reach exactly the on-prem databases, folders and services that the site's own file allows."
	hc.OpenAPIPath, hc.DocsPath, hc.SchemasPath = "", "", ""
	hc.CreateHooks = nil // no $schema links in bodies
	hc.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer", BearerFormat: "flt_…", Description: "an API token, in the one Authorization header"},
		"session": {Type: "http", Scheme: "bearer", BearerFormat: "fls_…", Description: "a person's session, as POST /sign-in gives it, in the same header"},
		"cookie":  {Type: "apiKey", In: "cookie", Name: Cookie, Description: "a session; other methods than GET, HEAD and OPTIONS want an Origin or Sec-Fetch-Site that says it is the relay's own page"}}
	hc.Security = []map[string][]string{{"token": {}}, {"session": {}}, {"cookie": {}}}
	hc.Servers = []*huma.Server{{URL: client.BasePath}}
	huma.NewError, huma.NewErrorWithContext = newHumaError, newHumaErrorFor
	a.huma = humago.NewWithPrefix(a.mux, client.BasePath, hc)
	a.admin()
	a.allowlistRoutes()
	a.gatewayRoutes()
	a.budgetRoutes()
	a.rightsRoutes()
	a.grantRoutes()
	a.userRoutes()
	a.serviceAccountRoutes()
	a.domainRoutes()
	a.projectRoutes()
	a.signInRoutes()
	a.handOverRoutes()
	a.auditRoutes()
	a.data()
	a.tunnelRoute()
	a.mux.HandleFunc("GET "+client.BasePath+"/openapi.json", a.serveOpenAPI)
	a.routes = append(a.routes, Route{Method: "GET", Path: "/openapi.json", Anonymous: true})
	if cfg.Tunnel != nil {
		route := strings.TrimPrefix(protocol.PathWebSocket, client.BasePath)
		a.mux.HandleFunc("GET "+protocol.PathWebSocket, func(w http.ResponseWriter, r *http.Request) {
			if err := cfg.Tunnel(w, r, a.source(r)); err != nil {
				a.fail(w, r, err)
			}
		})
		a.routes = append(a.routes, Route{Method: "GET", Path: route})
	}
	a.document()
	a.spec = sync.OnceValues(func() ([]byte, error) { return json.Marshal(a.huma.OpenAPI()) })
	if cfg.Pages != nil {
		a.mux.Handle("/account", cfg.Pages)
		a.mux.Handle("/account/", cfg.Pages)
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, dispatch.NotFound("route"))
	})
	return a
}

// Routes lists every route, for the test that walks them.
func (a *API) Routes() []Route { return a.routes }

// Run watches the rules: whoever is in the middle of a request that the rules no longer allow is cut. It returns when
// ctx ends.
func (a *API) Run(ctx context.Context) {
	tick := time.NewTicker(2 * time.Second) // expiry has no event of its own
	defer tick.Stop()
	for {
		changed := a.cfg.Directory.Changed()
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
		a.open.recheck(a)
	}
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	r = withID(w, r)
	if !a.named(w, r) {
		return
	}
	// net/http prefers Transfer-Encoding where Content-Length stands beside it, and does not tell. A proxy on the way may have
	// done the other thing, and what follows be somebody else's (RFC 9112, 6.1: the conn must close).
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 {
		h.Set("Connection", "close")
	}
	// The router must see the path that the checks see: a path that would need cleaning is refused, not redirected. What
	// comes behind /http/ is the target's path; the agent holds it against its own rules.
	p, target, forward := splitTarget(r.URL.EscapedPath())
	if strings.Contains(p, "//") || strings.Contains(p+"/", "/./") || strings.Contains(p+"/", "/../") || hasEscapedDot(p) {
		a.fail(w, r, invalid("the path is not in its canonical form", "write it without empty, '.' or '..' segments"))
		return
	}
	if forward { // the router must not clean the target's path
		u := *r.URL
		u.RawPath = p + "-"
		var err error
		if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
			a.fail(w, r, invalid("the path is not well-formed", "percent-encode reserved characters"))
			return
		}
		r = r.WithContext(context.WithValue(r.Context(), keyTarget, target))
		r.URL = &u
	}
	a.mux.ServeHTTP(w, r)
}

// splitTarget splits the path of a request to an HTTP service, …/connections/{connection}/http/{target}, as it was written.
func splitTarget(p string) (head, target string, ok bool) {
	const at = 8 // "", api, v1, workspaces, {workspace}, connections, {connection}, http, target
	parts := strings.SplitN(p, "/", at+1)
	if len(parts) <= at || !strings.HasPrefix(p, client.BasePath+"/workspaces/") || parts[5] != "connections" || parts[7] != "http" {
		return p, "", false
	}
	return p[:len(p)-len(parts[at])], parts[at], true
}

func hasEscapedDot(p string) bool {
	l := strings.ToLower(p)
	return strings.Contains(l, "%2e") || strings.Contains(l, "%5c") || strings.Contains(l, "%00")
}
