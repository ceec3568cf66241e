package websocket_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/websocket"
)

func acceptOf(key string) string { return websocket.AcceptOf(key) }

// hostile answers each connection by a function of its own, after the request's head.
func hostile(t *testing.T, answer func(c net.Conn, key string)) net.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		head := readHead(t, c)
		answer(c, strings.TrimSpace(strings.Split(strings.Split(head, "Sec-WebSocket-Key:")[1], "\r\n")[0]))
	}()
	c := dial(t, ln.Addr().String())
	t.Cleanup(func() { _ = c.Close(); _ = ln.Close(); <-done })
	return c
}

func TestClientJudgesTheAnswer(t *testing.T) {
	good := func(key string) string {
		return "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " + acceptOf(key) + "\r\nSec-WebSocket-Protocol: " + websocket.Protocol + "\r\n"
	}
	flood := func(first, piece string) func(net.Conn, string) {
		return func(c net.Conn, _ string) {
			_, err := io.WriteString(c, first)
			for err == nil {
				_, err = io.WriteString(c, piece)
			}
		}
	}
	say := func(f func(key string) string) func(net.Conn, string) {
		return func(c net.Conn, key string) {
			_, _ = io.WriteString(c, f(key))
			_, _ = io.Copy(io.Discard, c)
		}
	}
	for name, c := range map[string]struct {
		answer func(net.Conn, string)
		want   string // "" means taken
	}{
		"as it should":         {say(func(k string) string { return good(k) + "\r\n" }), ""},
		"after interim ones":   {say(func(k string) string { return "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + good(k) + "\r\n" }), ""},
		"proof of another key": {say(func(string) string { return good("dGhlIHNhbXBsZSBub25jZQ==") + "\r\n" }), "cache"},
		"no upgrade":           {say(func(k string) string { return strings.Replace(good(k), "Upgrade: websocket", "X: y", 1) + "\r\n" }), "does not fit"},
		"other subprotocol":    {say(func(k string) string { return strings.Replace(good(k), websocket.Protocol, "chat", 1) + "\r\n" }), "not a relay"},
		"compression":          {say(func(k string) string { return good(k) + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n" }), "not a relay"},
		"a page": {say(func(string) string {
			return "HTTP/1.1 200 OK\r\nServer: portal\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 6\r\n\r\n<html>"
		}), `status 200 by "portal" and a page`},
		"not found":             {say(func(string) string { return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n" }), "status 404"},
		"nothing":               {func(net.Conn, string) {}, "EOF"},
		"no HTTP":               {say(func(string) string { return "SSH-2.0-x\r\n\r\n" }), "malformed"},
		"endless headers":       {flood("HTTP/1.1 101 X\r\n", "X-A: "+strings.Repeat("a", 100)+"\r\n"), "longer than"},
		"one endless header":    {flood("HTTP/1.1 101 ", strings.Repeat("a", 1000)), "longer than"},
		"nothing but 1xx":       {flood("", "HTTP/1.1 100 Continue\r\n\r\n"), "interim"},
		"endless headers in 1x": {flood("", "HTTP/1.1 103 X\r\nX-A: "+strings.Repeat("a", 3000)+"\r\n\r\n"), "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn := hostile(t, c.answer)
			ws, err := websocket.Client(ctx, conn, "x", "/")
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want == "":
				_ = ws.Close()
			case err == nil || !strings.Contains(err.Error(), c.want) || ctx.Err() != nil:
				t.Fatalf("got %v, want %q", err, c.want)
			}
			_ = conn.Close()
		})
	}
	t.Run("silence", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		conn := hostile(t, func(c net.Conn, _ string) { _, _ = io.Copy(io.Discard, c) })
		if _, err := websocket.Client(ctx, conn, "x", "/"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		_ = conn.Close()
	})
	t.Run("a ping at once", func(t *testing.T) {
		conn := hostile(t, func(c net.Conn, key string) {
			_, _ = io.WriteString(c, good(key)+"\r\n"+string(frame(0x89, false, []byte("hi")))+string(frame(0x82, false, []byte("there"))))
			_, _ = io.Copy(io.Discard, c)
		})
		ws, err := websocket.Client(t.Context(), conn, "x", "/")
		must(t, err)
		got := make([]byte, 5)
		if _, err := io.ReadFull(ws, got); err != nil || string(got) != "there" {
			t.Fatalf("got %q, %v", got, err)
		}
		_ = ws.Close()
	})
}

func TestServerJudgesTheRequest(t *testing.T) {
	head := func() http.Header {
		return http.Header{"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"x, " + websocket.Protocol}}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"of a browser":          {func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, 403},
		"of no known origin":    {func(r *http.Request) { r.Header.Set("Origin", "null") }, 403},
		"of an empty origin":    {func(r *http.Request) { r.Header["Origin"] = []string{""} }, 403},
		"POST":                  {func(r *http.Request) { r.Method = http.MethodPost }, 400},
		"HTTP/1.0":              {func(r *http.Request) { r.ProtoMinor = 0 }, 400},
		"HTTP/2":                {func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 }, 400},
		"no upgrade":            {func(r *http.Request) { r.Header.Del("Upgrade") }, 426},
		"upgrade not connected": {func(r *http.Request) { r.Header.Set("Connection", "keep-alive") }, 426},
		"other upgrade":         {func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, 426},
		"version 8":             {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, 426},
		"two versions":          {func(r *http.Request) { r.Header.Add("Sec-WebSocket-Version", "13") }, 426},
		"no key":                {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Key") }, 400},
		"two keys":              {func(r *http.Request) { r.Header.Add("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==") }, 400},
		"short key":             {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "dGhl") }, 400},
		"key that is none":      {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "%%%%") }, 400},
		"no subprotocol":        {func(r *http.Request) { r.Header.Del("Sec-WebSocket-Protocol") }, 400},
		"a body":                {func(r *http.Request) { r.ContentLength = 3 }, 400},
		"a body in chunks":      {func(r *http.Request) { r.ContentLength, r.TransferEncoding = -1, []string{"chunked"} }, 400},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.Header = head()
			c.change(r)
			var fault *websocket.HandshakeError
			if _, err := websocket.Accept(httptest.NewRecorder(), r); !errors.As(err, &fault) || fault.Status != c.status || fault.Message == "" {
				t.Fatalf("got %v", err)
			}
		})
	}
	// A server that cannot give its connection away says so, and the request is not taken for one that was wrong.
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = head()
	var fault *websocket.HandshakeError
	if _, err := websocket.Accept(httptest.NewRecorder(), r); err == nil || errors.As(err, &fault) {
		t.Fatalf("got %v", err)
	}
}
