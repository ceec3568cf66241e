package tunnel_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// HTTP/1.1 as the halves speak it: http.Server on the tunnel's listener, http.Transport that opens streams.
func TestHTTP(t *testing.T) {
	for name, pair := range map[string]pairFunc{"tls": tlsPair, "memory": memoryPair} {
		t.Run(name, func(t *testing.T) { testHTTP(t, pair) })
	}
}

func testHTTP(t *testing.T, pair pairFunc) {
	agent, relay := pair(t, tunnel.DefaultConfig())
	gone := make(chan struct{}, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-End")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("X-End", "yes")
	})
	mux.HandleFunc("GET /wait", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	})
	mux.HandleFunc("GET /abort", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, 1000))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("POST /dial", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n")
		_, _ = io.Copy(c, rw) // until the peer's CloseWrite
		_, _ = io.WriteString(c, " and that is all")
	})
	srv := &http.Server{Handler: mux}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(tunnel.NewListener(agent)) })
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return relay.Open(ctx) }}
	defer func() {
		tr.CloseIdleConnections()
		_ = srv.Close()
		wg.Wait()
		eventually(t, "no streams left", func() bool { return agent.Streams() == 0 && relay.Streams() == 0 })
	}()
	c := &http.Client{Transport: tr}

	want := random(3 << 20)
	for range 3 {
		resp, err := c.Post("http://agent/echo", "", bytes.NewReader(want))
		must(t, err)
		got, err := io.ReadAll(resp.Body)
		must(t, err)
		_ = resp.Body.Close()
		if !bytes.Equal(got, want) || resp.Trailer.Get("X-End") != "yes" {
			t.Errorf("got %d bytes, trailer %v", len(got), resp.Trailer)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://agent/wait", nil)
	must(t, err)
	resp, err := c.Do(req)
	must(t, err)
	cancel()
	within(t, 10*time.Second, "the handler sees that the caller is gone", gone)
	_ = resp.Body.Close()

	resp, err = c.Get("http://agent/abort")
	must(t, err)
	if n, err := io.Copy(io.Discard, resp.Body); err == nil || n != 1000 {
		t.Errorf("an aborted answer read as whole: %d, %v", n, err)
	}
	_ = resp.Body.Close()

	s, err := relay.Open(t.Context())
	must(t, err)
	defer s.Close()
	// The bytes go with the request, in one flight.
	_, err = io.WriteString(s, "POST /dial HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\nhello")
	must(t, err)
	must(t, s.CloseWrite())
	br := bufio.NewReader(s)
	up, err := http.ReadResponse(br, nil)
	must(t, err)
	if got, err := io.ReadAll(br); up.StatusCode != 101 || string(got) != "hello and that is all" || err != nil {
		t.Errorf("status %d, got %q, %v", up.StatusCode, got, err)
	}
	_ = up.Body.Close()
}
