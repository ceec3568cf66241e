//go:build linux

package hostile_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// webSocket asks for a WebSocket as an agent does, with further headers.
func (h *house) webSocket(t testing.TB, headers string) (*tls.Conn, *bufio.Reader, *http.Response) {
	t.Helper()
	c := h.tls(t, h.people("http/1.1"))
	_, err := io.WriteString(c, "GET "+protocol.PathWebSocket+" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: fairlead.1\r\n"+headers+"\r\n")
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	return c, br, resp
}

// wsFrame is a masked frame whose length is told to be n, with a mask of zeros.
func wsFrame(first byte, n uint64, body []byte) []byte {
	b := []byte{first}
	switch {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), n)
	}
	return append(append(b, 0, 0, 0, 0), body...)
}

func webSocketRows(t *testing.T, h *house) {
	h.row(t, "D19 frames that no peer sends", func(t *testing.T) {
		for name, frames := range map[string][]byte{
			"length 2^63":              wsFrame(0x82, 1<<63, make([]byte, 1000)),
			"length 2^64-1":            wsFrame(0x82, 1<<64-1, make([]byte, 1000)),
			"not masked":               {0x82, 5, 'h', 'e', 'l', 'l', 'o'},
			"ping in pieces":           wsFrame(0x09, 4, []byte("ping")),
			"ping of 126 bytes":        wsFrame(0x89, 126, make([]byte, 126)),
			"reserved bit, as deflate": wsFrame(0xc2, 4, []byte("xxxx")),
			"text":                     wsFrame(0x81, 4, []byte("text")),
			"opcode of no kind":        wsFrame(0x83, 4, []byte("xxxx")),
			"piece of nothing":         wsFrame(0x80, 4, []byte("xxxx")),
			"no TLS inside":            wsFrame(0x82, 18, []byte("GET / HTTP/1.1\r\n\r\n")),
			"empty frames":             bytes.Repeat(wsFrame(0x02, 0, nil), 100_000),
		} {
			t.Run(name, func(t *testing.T) {
				c, _, resp := h.webSocket(t, "")
				if resp.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("status %d", resp.StatusCode)
				}
				_, _ = c.Write(frames)
				ended(t, c, 12*time.Second) // of a handshake's time, at the most
			})
		}
	})
	h.row(t, "D19 upgrades that are refused", func(t *testing.T) {
		if _, _, resp := h.webSocket(t, "Origin: https://evil.example\r\n"); resp.StatusCode != http.StatusForbidden {
			t.Errorf("from a page of another site: status %d", resp.StatusCode)
		}
		_, _, resp := h.webSocket(t, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n")
		if x := resp.Header.Get("Sec-WebSocket-Extensions"); resp.StatusCode != http.StatusSwitchingProtocols || x != "" {
			t.Errorf("compression: status %d, %q", resp.StatusCode, x)
		}
	})
	h.row(t, "D19 memory before anybody is known", func(t *testing.T) {
		before := rssOf(t, h.relay.pid())
		var conns []*tls.Conn
		for range 200 {
			c, _, resp := h.webSocket(t, "")
			if resp.StatusCode != http.StatusSwitchingProtocols {
				break // the share of one source is used up
			}
			conns = append(conns, c)
			_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
			// The beginning of a ClientHello that is told to be as long as may be, in a frame that is told to be longer.
			_, _ = c.Write(wsFrame(0x82, 1<<40, append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff}, make([]byte, 16000)...)))
		}
		if len(conns) < 50 {
			t.Fatalf("only %d conns", len(conns))
		}
		if grown := rssOf(t, h.relay.pid()) - before; grown > 64<<20 {
			t.Errorf("%d conns cost %d MiB", len(conns), grown>>20)
		}
	})
}

func exposureRows(t *testing.T, h *house) {
	me := h.enrol(t, "talker")
	series := func() (names []string) {
		resp, err := http.Get("http://" + h.health + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			if line := s.Text(); !strings.HasPrefix(line, "#") {
				names = append(names, line[:strings.LastIndexByte(line, ' ')])
			}
		}
		return names
	}
	h.row(t, "D23 metrics have a fixed number of series", func(t *testing.T) {
		said := func(n int) string {
			return fmt.Sprintf(`{"version":1,"min_version":1,"agent_version":"v-rogue-%d","hostname":"rogue-%d","os":"rogue-os-%d","arch":"rogue","constraints":["rogue-%d"],"status":{"config_digest":"rogue-%d"},"profiles":[{"name":"rogue-%d","kind":"files","operations":["read","rogue-%d"]}]}`, n, n, n, n, n, n, n)
		}
		once := func(n int) {
			tn, err := h.dial(t, me)
			if err != nil {
				t.Fatal(err)
			}
			defer tn.Close()
			for _, text := range []string{post(protocol.PathHello, said(n)), post(fmt.Sprintf("/v1/rogue-%d", n), "{}")} {
				if say(t, tn, text) == 0 {
					t.Fatal("no answer")
				}
			}
			c := h.tls(t, h.people("http/1.1"))
			_, _ = fmt.Fprintf(c, "ROGUE%d /api/v1/rogue-%d HTTP/1.1\r\nHost: rogue-%d\r\n\r\n", n, n, n)
			_, _ = http.ReadResponse(bufio.NewReader(c), nil)
			reset(c.NetConn())
		}
		once(0)
		before := series()
		for n := range 200 {
			once(n + 1)
		}
		after := series()
		if len(before) < 20 || len(after) > len(before)+5 { // the first of a status class may come late
			t.Errorf("%d series, and %d before", len(after), len(before))
		}
		if i := slices.IndexFunc(after, func(s string) bool { return strings.Contains(strings.ToLower(s), "rogue") }); i >= 0 {
			t.Errorf("an agent made the series %s", after[i])
		}
	})
	h.row(t, "D25 nothing for debugging is reachable", func(t *testing.T) {
		get := func(c io.ReadWriter, path string) (int, string) {
			_, _ = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
			return resp.StatusCode, string(b)
		}
		for _, p := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/cmdline", "/debug/vars", "/debug/requests", "/debug/events", "/metrics", "/healthz", "/readyz", "/api/v1/metrics", "/api/v1/debug/pprof/"} {
			if status, body := get(h.tls(t, h.people("http/1.1")), p); status/100 != 4 || strings.Contains(body, "goroutine") {
				t.Errorf("%s on the port of everybody: %d %.100s", p, status, body)
			}
			if !strings.HasPrefix(p, "/debug") {
				continue
			}
			resp, err := http.Get("http://" + h.health + p)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s on the port of health: %d", p, resp.StatusCode)
			}
		}
		if l := listeningOf(t, h.agent.pid()); len(l) > 0 {
			t.Errorf("the agent listens: %v", l)
		}
	})
}
