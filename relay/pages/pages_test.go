package pages

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func serve(t *testing.T, method, target string, header ...string) *http.Response {
	t.Helper()
	p, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(method, "https://relay.example/", http.NoBody)
	u, err := url.ParseRequestURI(target)
	if err != nil {
		t.Fatal(err)
	}
	r.URL = u
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w.Result()
}

func all(t *testing.T) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := fs.WalkDir(files, "files", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(p)
		m[strings.TrimPrefix(p, "files/")] = string(b)
		return err
	})
	if err != nil || len(m) < 8 {
		t.Fatal(len(m), err)
	}
	return m
}

// Every answer, refusals included, shuts out what the pages do not need.
func TestEveryAnswerIsStrict(t *testing.T) {
	for _, c := range []struct {
		method, target string
		status         int
	}{{"GET", "/account/", 200}, {"HEAD", "/account/", 200}, {"GET", "/account/first", 200}, {"GET", "/account/cli", 200}, {"GET", "/account/account.js", 200}, {"GET", "/account/account.css", 200},
		{"GET", "/account/none", 404}, {"POST", "/account/", 405}, {"OPTIONS", "/account/", 405}, {"TRACE", "/account/cli", 405}, {"GET", "/account", 308}} {
		r := serve(t, c.method, c.target)
		if r.StatusCode != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.target, r.StatusCode, c.status)
		}
		csp := r.Header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:", "form-action 'none'", "base-uri 'none'",
			"frame-ancestors 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s %s: no %s in %q", c.method, c.target, want, csp)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Error(csp)
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
			"X-Frame-Options": "DENY", "Cache-Control": "no-cache"} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s %s: %s is %q", c.method, c.target, name, got)
			}
		}
		for _, want := range []string{"publickey-credentials-get=(self)", "publickey-credentials-create=(self)", "camera=()", "geolocation=()"} {
			if !strings.Contains(r.Header.Get("Permissions-Policy"), want) {
				t.Errorf("no %s", want)
			}
		}
		if r.Header.Get("Set-Cookie") != "" {
			t.Error("a page sets a cookie")
		}
		if c.status == 405 && r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("Allow %q", r.Header.Get("Allow"))
		}
	}
}

// No path leads to anything but the pages' own files.
func TestNoPathLeadsElsewhere(t *testing.T) {
	for _, target := range []string{"/account/index.html", "/account/first.html", "/account/first/", "/account//first", "/account/files/account.js", "/account/../account/first", "/account/..%2fpages.go", "/account/%2e%2e/pages.go",
		"/account/%66irst/x", "/account/pages.go", "/account/doc.go", "/account/..", "/account/.", "/account/account.js/", "/account/account.js%00", "/account/ACCOUNT.js", "/accounts/", "/account/%2ffirst", "/etc/passwd", "/account/a%2fb"} {
		if r := serve(t, "GET", target); r.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", target, r.StatusCode)
		}
	}
}

func TestETagSparesTheBody(t *testing.T) {
	first := serve(t, "GET", "/account/")
	tag := first.Header.Get("ETag")
	if !regexp.MustCompile(`^"[A-Za-z0-9_-]{22}"$`).MatchString(tag) {
		t.Fatal(tag)
	}
	for _, have := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		r := serve(t, "GET", "/account/", "If-None-Match", have)
		var b bytes.Buffer
		if _, err := b.ReadFrom(r.Body); err != nil || r.StatusCode != http.StatusNotModified || b.Len() != 0 || r.Header.Get("ETag") != tag {
			t.Errorf("%s: %d, %d bytes", have, r.StatusCode, b.Len())
		}
	}
	if r := serve(t, "GET", "/account/", "If-None-Match", `"other"`); r.StatusCode != 200 {
		t.Error(r.StatusCode)
	}
	if r := serve(t, "GET", "/account/cli"); r.Header.Get("ETag") == tag {
		t.Error("two pages have one tag")
	}
}

// The files keep to what the headers allow, by themselves: nothing inline, nothing from elsewhere, no text that becomes HTML or
// script, nothing kept in the browser.
func TestFilesHoldNothingThatThePolicyWouldStop(t *testing.T) {
	for name, text := range all(t) {
		for what, bad := range map[string]string{
			"an inline script":     `<script(?:[^>]*[^>\s])?>[^<]`,
			"an inline style":      `<style|\sstyle=`,
			"an inline listener":   `<[^>]*\son[a-z]+=`,
			"something elsewhere":  `(?:src|href|url|from|import)[=( ]+["'(](?:https?:)?//`,
			"a form in HTML":       `<form`, // which would send a password in an address where the script does not run
			"a text made HTML":     `innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTMLUnsafe|srcdoc`,
			"a text made a script": `\beval\(|new Function|setTimeout\(['"]|javascript:|import\(`,
			"a store":              `localStorage|sessionStorage|indexedDB|document\.cookie`,
			"another's script":     `\bcdn\b|unpkg|jsdelivr|googleapis`,
		} {
			if name == "account.svg" {
				continue
			}
			if found := regexp.MustCompile(bad).FindString(text); found != "" {
				t.Errorf("%s holds %s: %s", name, what, found)
			}
		}
		if strings.HasSuffix(name, ".html") {
			for _, want := range []string{`<html lang="en">`, `<main id="main"`, `name="viewport"`, "<noscript>", "<title>"} {
				if !strings.Contains(text, want) {
					t.Errorf("%s lacks %s", name, want)
				}
			}
		}
		// What a page loads is there.
		for _, m := range regexp.MustCompile(`(?:src|href)="(/[^"]+)"|from '\./([a-z]+\.js)'`).FindAllStringSubmatch(text, -1) {
			target := m[1]
			if m[2] != "" {
				target = Base + m[2]
			}
			if r := serve(t, "GET", target); r.StatusCode != 200 {
				t.Errorf("%s loads %s: %d", name, target, r.StatusCode)
			}
		}
	}
	if strings.Contains(all(t)["cli.js"], "localhost") {
		t.Error("the name localhost can lead elsewhere: RFC 8252 wants the address")
	}
}

func TestPagesKnowWhatTheRelayOffers(t *testing.T) {
	for _, on := range []bool{true, false} {
		p, err := New(Config{Passkeys: on})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest("GET", "https://relay.example/account/offers.json", http.NoBody))
		if want := map[bool]string{true: "{\"passkeys\":true}\n", false: "{\"passkeys\":false}\n"}[on]; w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
		}
	}
}
