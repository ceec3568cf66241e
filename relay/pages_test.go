package relay

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/client"
)

// The pages stand beside the API, open to everybody, with the headers of their own; without api.pages there are none. What stands
// in no route is refused as before.
func TestAccountPagesStandBesideTheAPI(t *testing.T) {
	for _, on := range []bool{true, false} {
		r, _ := running(t, func(c *Config) {
			if !c.API.Pages {
				t.Error("pages are off by default")
			}
			c.API.Pages = on
		})
		ask := func(method, path string) (int, http.Header, string) {
			req, err := http.NewRequestWithContext(t.Context(), method, "https://localhost"+path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			w := &recorder{header: http.Header{}}
			req.RemoteAddr, req.RequestURI = "203.0.113.1:1", path // on nobody's allowlist
			r.Handler().ServeHTTP(w, req)
			return w.status, w.header, w.body.String()
		}
		for _, path := range []string{"/account/", "/account/first", "/account/cli", "/account/account.js"} {
			status, h, body := ask("GET", path)
			want := http.StatusNotFound
			if on {
				want = http.StatusOK
			}
			if status != want || on != strings.Contains(h.Get("Content-Security-Policy"), "script-src 'self'") || h.Get("Strict-Transport-Security") == "" || h.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%v %s: %d %v %s", on, path, status, h, body)
			}
		}
		if status, h, _ := ask("POST", "/account/"); on && (status != http.StatusMethodNotAllowed || h.Get("Allow") != "GET, HEAD") {
			t.Errorf("POST: %d", status)
		}
		for _, path := range []string{"/", "/index.html", "/accounts", client.BasePath + "/account/first", "/account/../api/v1/whoami", "/account//"} {
			status, h, body := ask("GET", path)
			if status < 400 || h.Get("Content-Type") != client.ContentProblem || strings.Contains(h.Get("Content-Security-Policy"), "script-src") {
				t.Errorf("%v %s: %d %s", on, path, status, body)
			}
		}
	}
}

type recorder struct {
	header http.Header
	status int
	body   strings.Builder
}

func (w *recorder) Header() http.Header    { return w.header }
func (w *recorder) WriteHeader(status int) { w.status = status }
func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.body.Write(b)
}
