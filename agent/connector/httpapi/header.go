package httpapi

import (
	"net/http"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// hopByHop speak for one connection (RFC 9110, 7.6.1), or are set by the client code that sends the request.
var hopByHop = map[string]bool{
	"connection": true, "keep-alive": true, "te": true, "trailer": true, "transfer-encoding": true, "upgrade": true,
	"http2-settings": true, "host": true, "content-length": true, "expect": true,
}

// steering make a server see another client, URL or method than the one that was decided.
var steering = map[string]bool{
	"forwarded": true, "x-forwarded": true, "via": true, "x-remote-ip": true, "x-remote-addr": true, "x-originating-ip": true, "fastly-client-ip": true, "x-real-ip": true, "x-client-ip": true, "true-client-ip": true, "x-cluster-client-ip": true, "cf-connecting-ip": true,
	"x-original-url": true, "x-original-uri": true, "x-original-method": true, "x-envoy-original-path": true, "x-rewrite-url": true, "x-original-host": true, "x-host": true, "x-url-scheme": true,
	"x-http-method-override": true, "x-http-method": true, "x-method-override": true,
}

// ofOrigin speak of the origin that a browser sees, which is the relay and not the target.
var ofOrigin = map[string]bool{
	"alt-svc": true, "strict-transport-security": true, "public-key-pins": true, "clear-site-data": true, "nel": true, "report-to": true,
	"reporting-endpoints": true, "service-worker-allowed": true,
}

// canonical is the form in which names are compared: servers that make variables of headers take "_" for "-".
func canonical(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// dropped reports whether a header never goes to the target from a caller or the profile.
func dropped(name string) bool {
	n := canonical(name)
	return hopByHop[n] || steering[n] || strings.HasPrefix(n, "proxy-") || strings.HasPrefix(n, "x-forwarded-") || ours(n)
}

func ours(canonical string) bool {
	return strings.HasPrefix(canonical, strings.ToLower(protocol.HeaderPrefix))
}

// named lists the headers that Connection names: they go no further either.
func named(h http.Header) map[string]bool {
	var out map[string]bool
	for k, vs := range h {
		if canonical(k) != "connection" {
			continue
		}
		for _, v := range vs {
			for _, name := range strings.Split(v, ",") {
				if out == nil {
					out = map[string]bool{}
				}
				out[canonical(strings.TrimSpace(name))] = true
			}
		}
	}
	return out
}

// upgrades reports whether the caller asks for another protocol.
func upgrades(h http.Header) bool {
	for k := range h {
		if n := canonical(k); n == "upgrade" || n == "http2-settings" {
			return true
		}
	}
	return named(h)["upgrade"]
}

// forward gives the caller's headers that go to the target.
func (a *API) forward(in http.Header) http.Header {
	out := http.Header{}
	listed := named(in)
	for k, vs := range in {
		n := canonical(k)
		if dropped(k) || listed[n] || n == "authorization" && !a.cfg.ForwardAuthorization {
			continue
		}
		out[k] = append([]string(nil), vs...)
	}
	if _, ok := out["User-Agent"]; !ok {
		out.Set("User-Agent", userAgent)
	}
	return out
}

// answerHeader copies the target's headers that go to the caller.
func answerHeader(dst, src http.Header) {
	listed := named(src)
	for k, vs := range src {
		n := canonical(k)
		if hopByHop[n] && n != "content-length" || listed[n] || ofOrigin[n] || ours(n) || strings.HasPrefix(n, "proxy-") {
			continue
		}
		dst[k] = append([]string(nil), vs...)
	}
	if _, ok := dst["Content-Type"]; !ok {
		dst["Content-Type"] = nil // nothing is guessed from the first bytes
	}
}

// strip takes away what must not reach another origin (A20).
func (a *API) strip(h http.Header) {
	for k := range h {
		switch canonical(k) {
		case "authorization", "cookie", "www-authenticate", "origin", "referer":
			h.Del(k)
			delete(h, k) // a name that is not in canonical form
		}
	}
	for _, add := range a.cfg.Headers {
		h.Del(add.Name)
	}
}

// validName reports whether name is a token (RFC 9110, 5.6.2).
func validName(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return name != ""
}

// validValue reports whether v can stand in a header: no control characters but the tab.
func validValue(v []byte) bool {
	for _, c := range v {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
