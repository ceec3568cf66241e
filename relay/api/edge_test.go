package api_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// The rows of the catalog that the API itself answers for; those of the listener stand in internal/e2e.
func TestCallersAddress(t *testing.T) {
	direct, behind := newRig(t), newRig(t, "10.9.0.0/16")
	const outside, proxy = "203.0.113.9:1", "10.9.0.1:1"
	from := func(remote string, headers ...string) func(*http.Request) {
		return func(r *http.Request) {
			r.RemoteAddr = remote
			for i := 0; i+1 < len(headers); i += 2 {
				r.Header.Add(headers[i], headers[i+1])
			}
		}
	}
	for _, c := range []struct {
		name string
		g    *rig
		edit func(*http.Request)
		want int
	}{
		{"E1 on the list", direct, from(inside), 200},
		{"E1 not on the list", direct, from(outside), 403},
		{"E1 X-Forwarded-For of a peer that nobody trusts", direct, from(outside, "X-Forwarded-For", "192.0.2.10"), 403},
		{"E1 a peer on the list is not judged by what it forwards", direct, from(inside, "X-Forwarded-For", "203.0.113.9"), 200},
		{"E2 the proxy's word counts", behind, from(proxy, "X-Forwarded-For", "192.0.2.10"), 200},
		{"E2 right-most that is no proxy", behind, from(proxy, "X-Forwarded-For", "203.0.113.9, 192.0.2.10, 10.9.3.3"), 200},
		{"E2 the caller's own chain is left of it", behind, from(proxy, "X-Forwarded-For", "192.0.2.10, 203.0.113.9"), 403},
		{"E2 two headers are one chain", behind, from(proxy, "X-Forwarded-For", "192.0.2.10", "X-Forwarded-For", "203.0.113.9"), 403},
		{"E2 other headers do not count", behind, from(proxy, "Forwarded", "for=192.0.2.10", "X-Real-IP", "192.0.2.10", "True-Client-IP", "192.0.2.10", "CF-Connecting-IP", "192.0.2.10", "X-Client-IP", "192.0.2.10"), 403},
		{"E2 garbage", behind, from(proxy, "X-Forwarded-For", "192.0.2.10, unknown"), 403},
		{"E2 a port is garbage", behind, from(proxy, "X-Forwarded-For", "192.0.2.10:80"), 403},
		{"E2 nothing but proxies", behind, from(proxy, "X-Forwarded-For", "10.9.0.2"), 403},
		{"E2 a caller who is no proxy gets no say", behind, from(outside, "X-Forwarded-For", "192.0.2.10"), 403},
		{"E4 header gone", behind, from(proxy), 403},
		{"E4 header empty", behind, from(proxy, "X-Forwarded-For", ""), 403},
		{"E4 Connection names it", behind, from(proxy, "Connection", "X-Forwarded-For"), 403},
		{"E4 underscore twin", behind, from(proxy, "X_Forwarded_For", "192.0.2.10"), 403},
		{"E6 mapped address on the list", direct, from("[::ffff:192.0.2.10]:1"), 200},
		{"E6 mapped address not on the list", direct, from("[::ffff:203.0.113.9]:1"), 403},
		{"E6 mapped address of a proxy", behind, from("[::ffff:10.9.0.1]:1", "X-Forwarded-For", "::ffff:192.0.2.10"), 200},
		{"E6 zone", direct, from("[fe80::1%eth0]:1"), 403},
		{"no address at all", direct, from("@"), 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, path := range []string{"/whoami", "/workspaces/default/groups", "/workspaces/default/connections/default-shop/schema"} {
				want := c.want
				if want == 200 && strings.HasSuffix(path, "schema") {
					want = 503 // let in; there is no agent
				}
				if a := c.g.ask("GET", path, c.g.token[authz.Admin], "", c.edit); a.status != want {
					t.Errorf("%s: %d %s, want %d", path, a.status, a.body, want)
				}
			}
		})
	}
}

func TestPathTricks(t *testing.T) {
	g := newRig(t)
	const conn = "/workspaces/default/connections/default-shop"
	for path, want := range map[string]int{
		"//whoami": 400, "/./whoami": 400, "/../v1/whoami": 400, "/workspaces/%2e%2e/whoami": 400, "/workspaces/%2E%2E/whoami": 400,
		"/workspaces/default/%2e/agents": 400, "/workspaces/default\\agents": 400, "/workspaces/default%5cagents": 400, "/whoami%00": 400,
		"/WHOAMI": 404, "/whoami;x=1": 404, "/whoami/": 404, "/whoami%2f": 404, "/workspaces/default/agents%3fx": 404, "/workspaces/default%2fagents": 404,
		conn + "/files/../../../other": 400, conn + "/files/a%2e%2e/b": 400, conn + "/files//b": 400,
		// A workspace or path that is called http does not switch the check off.
		"/workspaces/http/connections/x/files/%2e%2e/b": 400, conn + "/files/http/../b": 400, conn + "/files/http/%2e%2e/b": 400,
		"/http/../whoami": 400,
	} {
		t.Run("E12 "+path, func(t *testing.T) {
			if a := g.ask("GET", "", g.token[authz.Admin], "", func(r *http.Request) {
				r.URL.RawPath = "/api/v1" + path
				r.URL.Path = unescape(t, "/api/v1"+path)
			}); a.status != want {
				t.Errorf("%d %s, want %d", a.status, a.body, want)
			}
		})
	}
	// The target's own path is the target's affair: not cleaned, not redirected, whatever the connection is called.
	for _, path := range []string{conn + "/http/a//b", conn + "/http/a/../b", conn + "/http/%2e%2e/b", conn + "/http/"} {
		t.Run("E12 forwarded "+path, func(t *testing.T) {
			a := g.ask("GET", "", g.token[authz.Admin], "", func(r *http.Request) {
				r.URL.RawPath = "/api/v1" + path
				r.URL.Path = unescape(t, "/api/v1"+path)
			})
			if a.status != http.StatusServiceUnavailable || a.problem.Code != protocol.CodeUnavailable {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
}

func unescape(t *testing.T, p string) string {
	t.Helper()
	r, err := http.NewRequest("GET", "http://x"+strings.ReplaceAll(p, "\\", "%5C"), nil)
	must(t, err)
	return r.URL.Path
}

func TestBodiesAreBoundedAndStrict(t *testing.T) {
	g := newRig(t)
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	keys := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `"k%d":1,`, i)
		}
		return "{" + b.String() + `"z":1}`
	}
	routes := map[string]string{"/workspaces/default/groups": `"name"`, "/workspaces/default/tokens": `"name"`, "/workspaces/default/connections/default-shop/query": `"sql"`,
		"/workspaces/default/connections/default-shop/move": `"from"`}
	for path, name := range routes {
		for row, body := range map[string]string{
			"E15 depth":                  deep,
			"E15 depth within a member":  `{` + name + `:` + deep + `}`,
			"E15 keys":                   keys(10_000),
			"E15 doubled member":         `{` + name + `:"a",` + name + `:"b"}`,
			"E15 doubled, in other case": `{` + name + `:"a",` + strings.ToUpper(name) + `:"b"}`,
			"E15 trailing data":          `{` + name + `:"a"} {}`,
			"E15 trailing garbage":       `{` + name + `:"a"}]`,
			"E15 NaN":                    `{` + name + `:NaN}`,
			"E15 big number":             `{` + name + `:1e999999999}`,
			"E15 unknown member":         `{` + name + `:"a","sudo":true}`,
			"E15 array":                  `[{` + name + `:"a"}]`,
			"E15 null":                   `null`,
			"E15 empty":                  ``,
			"E15 not JSON":               `name=a&role=admin`,
			"J3 mass assignment":         `{` + name + `:"a","workspace":"other","id":"x","created_by":"root"}`,
		} {
			t.Run(row+" "+path, func(t *testing.T) {
				if a := g.ask("POST", path, g.token[authz.Admin], body); a.status != http.StatusBadRequest || a.problem.Code != protocol.CodeInvalid || a.problem.RequestID == "" {
					t.Errorf("%d %.300s", a.status, a.body)
				}
			})
		}
		t.Run("E15 too long "+path, func(t *testing.T) {
			body := `{` + name + `:"` + strings.Repeat("x", protocol.MaxBodyBytes+10) + `"}`
			if a := g.ask("POST", path, g.token[authz.Admin], body); a.status != http.StatusRequestEntityTooLarge {
				t.Errorf("%d %.300s", a.status, a.body)
			}
		})
	}
	t.Run("E16 10,000 query parameters", func(t *testing.T) {
		if a := g.ask("GET", "/workspaces/default/connections/default-shop/list?"+strings.Repeat("path=a&", 10_000), g.token[authz.Admin], ""); a.status != http.StatusBadRequest {
			t.Errorf("%d %.300s", a.status, a.body)
		}
	})
	t.Run("E16 a compressed body is not opened", func(t *testing.T) {
		if a := g.ask("POST", "/workspaces/default/groups", g.token[authz.Admin], "\x1f\x8b\x08\x00", func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }); a.status != http.StatusBadRequest {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	if ws, err := g.dir.Snapshot().Workspace("default"); err != nil || len(ws.Groups) != 2 || len(ws.Tokens) != 4 {
		t.Errorf("a refused body left something: %d groups, %d tokens, %v", len(ws.Groups), len(ws.Tokens), err)
	}
}

// Whoever may not, is told so before a byte of the body is read.
func TestBodyOfWhoMayNotIsNotRead(t *testing.T) {
	g := newRig(t)
	for name, c := range map[string]struct {
		path, token string
		edit        func(*http.Request)
		want        int
	}{
		"no token":           {"/workspaces/default/connections/default-shop/query", "", nil, 401},
		"wrong role":         {"/workspaces/default/connections/default-shop/exec", g.token[authz.Analyst], nil, 403},
		"outside":            {"/workspaces/default/connections/default-shop/query", g.token[authz.Admin], func(r *http.Request) { r.RemoteAddr = "203.0.113.9:1" }, 403},
		"other workspace":    {"/workspaces/other/connections/other-shop/query", g.token[authz.Admin], nil, 404},
		"admin, wrong role":  {"/workspaces/default/groups", g.token[authz.Analyst], nil, 403},
		"no such connection": {"/workspaces/default/connections/nothing/query", g.token[authz.Admin], nil, 404},
	} {
		t.Run("D30 "+name, func(t *testing.T) {
			body := &endless{}
			a := g.ask("POST", c.path, c.token, "", func(r *http.Request) {
				r.Body, r.ContentLength = body, -1
				if c.edit != nil {
					c.edit(r)
				}
			})
			if a.status != c.want || body.n != 0 {
				t.Errorf("%d, %d bytes read: %s", a.status, body.n, a.body)
			}
		})
	}
}

type endless struct{ n int }

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	e.n += len(p)
	return len(p), nil
}

func (e *endless) Close() error { return nil }

// P11: whoever loses a right while the body of a request is still coming has lost it when the body is there.
func TestRightsLostWhileTheBodyComesAreLost(t *testing.T) {
	g := newRig(t)
	for name, take := range map[string]func(id string) error{
		"token revoked": func(id string) error { return g.dir.RevokeToken(t.Context(), "default", id) },
		"principal disabled": func(id string) error {
			return g.dir.SetPrincipalDisabled(t.Context(), "default", principalOf(g, id), true)
		},
	} {
		for path, body := range map[string]string{"/workspaces/default/tokens": `{"name":"late","roles":["admin"]}`, "/workspaces/default/groups": `{"name":"late"}`} {
			t.Run(name+" "+path, func(t *testing.T) {
				tok, text, err := g.dir.CreateToken(t.Context(), g.admin, "default", directory.NewToken{Name: name + strings.ReplaceAll(path, "/", " "), Roles: []authz.Role{authz.Admin}, Life: time.Hour})
				must(t, err)
				a := g.ask("POST", path, text.ExposeString(), body, func(r *http.Request) {
					r.Body = &lateBody{Reader: r.Body, first: func() { must(t, take(tok.ID)) }}
				})
				if a.status != http.StatusUnauthorized {
					t.Errorf("%d %s", a.status, a.body)
				}
				ws, err := g.dir.Snapshot().Workspace("default")
				must(t, err)
				if _, err := ws.Group("late"); err == nil {
					t.Error("a group was made")
				}
				for _, have := range ws.Tokens {
					if have.Name == "late" {
						t.Error("a token was made")
					}
				}
			})
		}
	}
}

func principalOf(g *rig, token string) string {
	ws, err := g.dir.Snapshot().Workspace("default")
	must(g.t, err)
	for _, have := range ws.Tokens {
		if have.ID == token {
			return have.Principal.ID
		}
	}
	g.t.Fatal("no such token")
	return ""
}

// lateBody lets something happen between a request's head and its body.
type lateBody struct {
	io.Reader
	first func()
}

func (b *lateBody) Read(p []byte) (int, error) {
	if b.first != nil {
		b.first()
		b.first = nil
	}
	return b.Reader.Read(p)
}

func (b *lateBody) Close() error { return nil }

func TestHeadersAndOneTruthAboutTheRequest(t *testing.T) {
	g := newRig(t)
	for _, path := range []string{"/whoami", "/openapi.json", "/nothing", "/workspaces/default/agents", "/workspaces/default/connections/default-shop/schema"} {
		t.Run("E20 headers of "+path, func(t *testing.T) { strictHeaders(t, g.ask("GET", path, g.token[authz.Admin], "")) })
	}
	admin := g.token[authz.Admin]
	for name, edit := range map[string]func(*http.Request){
		"E21 user agent of a probe": func(r *http.Request) { r.Header.Set("User-Agent", "kube-probe/1.30 GoogleHC/1.0") },
		"E23 Proxy-Authorization":   func(r *http.Request) { r.Header.Set("Proxy-Authorization", "Bearer "+admin) },
		"E23 X-API-Key":             func(r *http.Request) { r.Header.Set("X-Api-Key", admin) },
		"E23 cookie":                func(r *http.Request) { r.AddCookie(&http.Cookie{Name: "token", Value: admin}) },
		"E23 query":                 func(r *http.Request) { r.URL.RawQuery = "access_token=" + admin },
		"E23 user info":             func(r *http.Request) { r.SetBasicAuth("token", admin) },
		"E23 two Authorization":     func(r *http.Request) { r.Header["Authorization"] = []string{"Bearer " + admin, "Bearer " + admin} },
		"E23 two in one":            func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+admin+", Bearer "+admin) },
		"E23 space behind":          func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+admin+" ") },
		"E23 other scheme":          func(r *http.Request) { r.Header.Set("Authorization", "Basic "+admin) },
		"E23 X-Original-URL":        func(r *http.Request) { r.Header.Set("X-Original-Url", "/api/v1/openapi.json") },
		"E23 method override":       func(r *http.Request) { r.Header.Set("X-Http-Method-Override", "GET") },
		"E17 forwarded host and proto": func(r *http.Request) {
			r.Header.Set("X-Forwarded-Host", "localhost")
			r.Header.Set("X-Forwarded-Proto", "https")
		},
	} {
		t.Run(name, func(t *testing.T) {
			if a := g.ask("GET", "/workspaces/default/groups", "", "", edit); a.status != http.StatusUnauthorized {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	// No host is served another way than the next: the answer knows no host, and the allowlist is the workspace's.
	t.Run("E22 any Host", func(t *testing.T) {
		want := g.ask("GET", "/whoami", admin, "")
		for _, host := range []string{"other.example", "localhost", "169.254.169.254", "relay.example:1", ""} {
			a := g.ask("GET", "/whoami", admin, "", func(r *http.Request) { r.Host, r.URL.Host = host, host })
			if a.status != want.status || a.body != want.body || strings.Contains(a.body, "other.example") {
				t.Errorf("%q: %d %s", host, a.status, a.body)
			}
		}
	})
	t.Run("an upgrade is refused, not dropped", func(t *testing.T) {
		if a := g.ask("GET", "/workspaces/default/connections/default-shop/http/ws", admin, "", func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "websocket")
		}); a.problem.Code != protocol.CodeUnsupported {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
}

// strictHeaders holds an answer to what every answer of the API says.
func strictHeaders(t *testing.T, a answer) {
	t.Helper()
	for k, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": "max-age=31536000"} {
		if a.header.Get(k) != want {
			t.Errorf("%s is %q", k, a.header.Get(k))
		}
	}
	if a.header.Get("Access-Control-Allow-Origin") != "" || a.header.Get("Set-Cookie") != "" || !strings.HasPrefix(a.header.Get(protocol.HeaderRequestID), "req_") {
		t.Errorf("%v", a.header)
	}
}
