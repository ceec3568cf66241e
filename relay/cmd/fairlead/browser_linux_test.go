package main

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

// Other users of the machine see what a browser is started with: from that nobody gets the link twice.
func TestLinkIsNotInTheBrowsersArguments(t *testing.T) {
	dir := t.TempDir()
	said := filepath.Join(dir, "said")
	if err := syscall.Mkfifo(said, 0o600); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nprintf %s \"$1\" >" + said + "\n"
	if err := os.WriteFile(filepath.Join(dir, "xdg-open"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	home(t)
	srv := clienttest.New(t)
	a := askBrowserOn(t, ":7", "--relay", srv.Host, "--ca", srv.CAFile)

	b, err := os.ReadFile(said)
	if err != nil {
		t.Fatal(err)
	}
	argument := string(b)
	u, err := url.Parse(argument)
	if err != nil || u.Host != "127.0.0.1:"+a.page.Get("port") || strings.Contains(argument, a.page.Get("state")) || strings.Contains(argument, a.page.Get("challenge")) {
		t.Fatalf("the browser is started with %s, %v", argument, err)
	}
	get := func() *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, argument, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	if resp := get(); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != a.link.String() {
		t.Errorf("%d to %s, want %s", resp.StatusCode, resp.Header.Get("Location"), a.link)
	}
	// Whoever was first and brings an answer at once has it wait until a browser that comes second is seen.
	brought := make(chan int, 1)
	answer, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+u.Host+"/?"+url.Values{"code": {clienttest.HandOver}, "state": a.page["state"]}.Encode(), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(answer)
		if err != nil { // the program has ended
			brought <- 0
			return
		}
		resp.Body.Close()
		brought <- resp.StatusCode
	}()
	select {
	case status := <-brought:
		t.Errorf("an answer was taken at once: %d", status)
	case <-time.After(300 * time.Millisecond):
	}
	if resp := get(); resp.StatusCode != http.StatusGone || resp.Header.Get("Location") != "" {
		t.Errorf("the second time: %d to %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	if status := <-brought; status == http.StatusOK {
		t.Error("the answer was taken")
	}
	if path, err := loginFile(); err != nil {
		t.Error(err)
	} else if _, err := os.Stat(path); err == nil {
		t.Error("something was saved")
	}
	if end := <-a.end; end.status == 0 || !strings.Contains(end.errs, "opened twice") {
		t.Errorf("%+v", end)
	}
}
