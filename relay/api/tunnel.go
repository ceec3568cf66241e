package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

const tunnelPath = "/workspaces/{workspace}/tunnel"

// tunnelRoute registers the tunnel of callers: many dials over one connection.
func (a *API) tunnelRoute() {
	a.routes = append(a.routes, Route{Method: "POST", Path: tunnelPath, Action: string(authz.ConnectionsRead)})
	a.huma.OpenAPI().AddOperation(&huma.Operation{Method: "POST", Path: tunnelPath, OperationID: "tunnel", Summary: "Open a tunnel for many dials (Upgrade: " + protocol.UpgradeTunnel + ", HTTP/1.1)",
		Tags: []string{"connections"}, Parameters: []*huma.Param{pathParam("workspace")},
		Responses: map[string]*huma.Response{"101": {Description: "yamux from here on; each stream is one dial of this workspace's connections in HTTP/1.1"},
			"default": {Description: "A problem", Content: map[string]*huma.MediaType{client.ContentProblem: {Schema: a.schemaOf(client.Problem{})}}}}})
	a.mux.HandleFunc("POST "+client.BasePath+tunnelPath, a.serveTunnel)
}

// serveTunnel lets the caller in and serves its streams until the tunnel ends, the rules change against the caller, or the
// relay stops. Each stream makes the whole way of a dial by itself: authentication, allowlist, decision, record.
func (a *API) serveTunnel(w http.ResponseWriter, r *http.Request) {
	v, err := a.enter(r, r.PathValue("workspace"), authz.ConnectionsRead, true)
	switch {
	case err != nil:
	case !strings.EqualFold(r.Header.Get("Upgrade"), protocol.UpgradeTunnel):
		err = invalid("tunnel wants the header Upgrade: "+protocol.UpgradeTunnel, "use `fairlead connect`, or dial each connection by itself")
	case r.ProtoMajor != 1:
		err = &protocol.Error{Code: protocol.CodeUnsupported, Message: "tunnel wants HTTP/1.1", Hint: "offer only http/1.1 in ALPN"}
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	v.tunnel, v.scope = true, authz.Scope{Workspace: v.workspace.ID}
	ctx, leave := a.open.admit(r.Context(), v)
	defer leave()
	// A change that came before admit was seen by nobody.
	if err := stillAllowed(a, a.cfg.Directory.Snapshot(), v); err != nil {
		a.fail(w, r, err)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		a.cfg.Logger.Error("hijack for a tunnel", "error", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	early := make([]byte, buf.Reader.Buffered())
	_, _ = io.ReadFull(buf.Reader, early)
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeTunnel+"\r\n\r\n"); err != nil {
		_ = conn.Close()
		return
	}
	cfg := tunnel.DefaultConfig()
	cfg.Logger = a.cfg.Logger
	t, err := tunnel.Upgraded(conn, early, false, cfg)
	if err != nil {
		a.cfg.Logger.Error("tunnel of a caller", "request_id", requestID(r.Context()), "error", err)
		return
	}
	a.serveStreams(ctx, r, t)
}

// serveStreams returns when the tunnel and all requests in it have ended: their outcomes are recorded then.
func (a *API) serveStreams(ctx context.Context, outer *http.Request, t tunnel.Tunnel) {
	defer context.AfterFunc(ctx, func() { _ = t.Close() })()
	defer t.Close()
	var conns, requests sync.WaitGroup
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
		// Told of before a conn's goroutine begins, and after its handler has been left or has taken the conn over.
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				conns.Add(1)
			case http.StateHijacked, http.StateClosed:
				conns.Done()
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests.Add(1) // while conns counts it
			defer requests.Done()
			a.serveStream(w, r, outer)
		})}
	_ = srv.Serve(tunnel.NewListener(t)) // ends with the tunnel
	_ = srv.Close()
	conns.Wait()
	requests.Wait()
}

// serveStream serves one dial. Who asks and from where is what the tunnel's own request said, whatever the stream says.
func (a *API) serveStream(w http.ResponseWriter, r *http.Request, outer *http.Request) {
	prefix := strings.TrimSuffix(outer.URL.EscapedPath(), "/tunnel") + "/connections/"
	name, ok := strings.CutPrefix(r.URL.EscapedPath(), prefix)
	name, dial := strings.CutSuffix(name, "/dial")
	if r.Method != http.MethodPost || !ok || !dial || name == "" || strings.Contains(name, "/") {
		r = withID(w, r)
		a.fail(w, r, dispatch.NotFound("route in a tunnel"))
		return
	}
	r.RemoteAddr = outer.RemoteAddr
	for _, k := range []string{"Authorization", "Cookie", "X-Forwarded-For"} {
		r.Header.Del(k)
		if vs := outer.Header.Values(k); len(vs) > 0 {
			r.Header[k] = vs
		}
	}
	a.ServeHTTP(w, r)
}
