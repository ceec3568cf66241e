package pages

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed files
var files embed.FS

// Base is where the pages stand on the relay's listener.
const Base = "/account/"

// policy lets the pages run their own scripts and ask their own relay, and nothing else. Every sink that turns a text into script is
// shut, for no Trusted Types policy may be made.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'none'; base-uri 'none'; " +
	"frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// features takes from the pages what they do not use; passkeys are for themselves alone.
const features = "publickey-credentials-get=(self), publickey-credentials-create=(self), clipboard-write=(self), accelerometer=(), autoplay=(), " +
	"camera=(), clipboard-read=(), display-capture=(), encrypted-media=(), fullscreen=(), gamepad=(), geolocation=(), gyroscope=(), hid=(), " +
	"identity-credentials-get=(), idle-detection=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), screen-wake-lock=(), " +
	"serial=(), usb=(), xr-spatial-tracking=()"

var types = map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

// A page is one answer, whole.
type page struct{ content, etag, body string }

// Pages serves them. It is safe for concurrent use.
type Pages struct{ of map[string]page }

// Config says what the relay offers, for the pages to show it or not. Nothing is decided by it.
type Config struct {
	Passkeys bool // people may sign in by passkeys
}

// New reads the files. A page "x.html" stands at x, index.html at the base itself, and what the relay offers at offers.json.
func New(c Config) (*Pages, error) {
	p := &Pages{of: map[string]page{}}
	p.put("offers.json", "application/json", fmt.Appendf(nil, "{\"passkeys\":%t}\n", c.Passkeys))
	list, err := files.ReadDir("files")
	if err != nil {
		return nil, fmt.Errorf("read the account pages: %w", err)
	}
	for _, f := range list {
		b, err := files.ReadFile("files/" + f.Name())
		if err != nil {
			return nil, fmt.Errorf("read the account pages: %w", err)
		}
		content := types[path.Ext(f.Name())]
		if content == "" {
			return nil, fmt.Errorf("account pages: %s is of no type that is served", f.Name())
		}
		name := strings.TrimSuffix(f.Name(), ".html")
		if name == "index" {
			name = ""
		}
		p.put(name, content, b)
	}
	return p, nil
}

func (p *Pages) put(name, content string, body []byte) {
	sum := sha256.Sum256(body)
	p.of[Base+name] = page{content: content, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`, body: string(body)}
}

// ServeHTTP implements http.Handler.
func (p *Pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	for name, value := range map[string]string{"Content-Security-Policy": policy, "Permissions-Policy": features, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp", "X-Frame-Options": "DENY", "Cache-Control": "no-cache"} {
		h.Set(name, value)
	}
	say := func(status int, text string) {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			_, _ = w.Write([]byte(text))
		}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		say(http.StatusMethodNotAllowed, "These pages are read, and nothing is sent to them.\n")
		return
	}
	if r.URL.Path+"/" == Base {
		h.Set("Location", Base)
		say(http.StatusPermanentRedirect, "The account pages are at "+Base+"\n")
		return
	}
	f, ok := p.of[r.URL.Path]
	if !ok || r.URL.RawPath != "" { // none of ours wants an escape
		say(http.StatusNotFound, "There is no such page. The account pages are at "+Base+"\n")
		return
	}
	h.Set("ETag", f.etag)
	if matches(r.Header.Values("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.content)
	h.Set("Content-Length", strconv.Itoa(len(f.body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write([]byte(f.body))
	}
}

// matches compares weakly (RFC 9110, 13.1.2); our tags hold no comma.
func matches(values []string, etag string) bool {
	for _, v := range values {
		for tag := range strings.SplitSeq(v, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.TrimPrefix(tag, "W/") == etag {
				return true
			}
		}
	}
	return false
}
