//go:build linux

package hostile_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// dial asks for host as it stands, also what protocol.Request would not put on the wire.
func (s *site) dial(t testing.TB, host, port string) answer {
	t.Helper()
	id := nextID()
	a, st := s.send(t, "POST /v1/tcp/-/dial?"+url.Values{"host": {host}, "port": {port}}.Encode()+" HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: fairlead-dial\r\nFairlead-Request-Id: "+id+"\r\n\r\n")
	st.Close()
	a.id = id
	return a
}

func TestRowsA(t *testing.T) {
	l := newLAN(t)
	echoPort, canaryPort, widePort := strconv.Itoa(l.echo.port), strconv.Itoa(l.canary.port), strconv.Itoa(l.wide.port)

	// Without it no refusal would mean anything.
	l.row(t, "A0 what is allowed works", func(t *testing.T) {
		a, st := l.open(t, dialTo("127.0.0.1", l.echo.port), "")
		l.went(t, a)
		if _, err := io.WriteString(st, "ping"); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4)
		if _, err := io.ReadFull(st, b); err != nil || string(b) != "ping" {
			t.Errorf("echo: %q, %v", b, err)
		}
		st.Close()
		if a := l.ask(t, request("web", "GET", "/v1/x"), ""); a.body != "hello from the target" {
			t.Errorf("%+v", a)
		}
		if a := l.ask(t, request("tls-good", "GET", "/x"), ""); a.body != "hello from the target" {
			t.Errorf("%+v", a)
		}
	})
	l.row(t, "A1 hosts that are not in the file", func(t *testing.T) {
		for _, host := range []string{"127.0.0.1", "127.0.0.2", "localhost", "db.evil.example", "192.0.2.7", "2001:db8::7"} {
			l.refused(t, l.dial(t, host, canaryPort))
		}
		for _, p := range []string{"nosuch", "web", "mitm"} { // profiles of other kinds are none of this
			r := dialTo("", 0)
			r.Profile = p
			l.refused(t, l.ask(t, r, ""))
		}
		r := database(protocol.OpDial, "guarded") // guarded by SQL rules: not raw
		l.refused(t, l.ask(t, r, ""))
		l.canary.silent(t, 0)
	})
	l.row(t, "A2 allowed host, other port or no port", func(t *testing.T) {
		before := l.echo.settled()
		for _, port := range []string{canaryPort, "0", "65536", "0" + echoPort, "+" + echoPort, echoPort + "\n", " " + echoPort, "-1", "", "0x50", "1e3", echoPort + "/tcp", strconv.Itoa(l.echo.port + 65536)} {
			l.refused(t, l.dial(t, "127.0.0.1", port))
		}
		l.echo.silent(t, before)
		l.canary.silent(t, 0)
	})
	l.row(t, "A3 a second request on the stream", func(t *testing.T) { l.secondRequest(t) })
	l.row(t, "A4 this machine", func(t *testing.T) {
		hosts := []string{"127.0.0.1", "127.8.8.8", "localhost", "LocalHost.", "::1", "0.0.0.0", "0.1.2.3", "::", "::ffff:127.0.0.1", "::127.0.0.1"}
		if own := ownAddress(t); own != "" {
			hosts = append(hosts, own, "::ffff:"+own)
		}
		name, _ := os.Hostname()
		for _, host := range append(hosts, name) {
			a := l.dial(t, host, widePort)
			if host == name && a.code() == protocol.CodeUnavailable {
				continue // its own name does not resolve here
			}
			l.refused(t, a)
		}
		l.wide.silent(t, 0)
	})
	l.row(t, "A5 metadata and link-local, though 0.0.0.0/0 is allowed", func(t *testing.T) {
		started := time.Now()
		for _, host := range []string{"169.254.169.254", "169.254.0.1", "fd00:ec2::254", "100.100.100.200", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
			"224.0.0.1", "ff02::1", "255.255.255.255", "168.63.129.16", "fe80::1%lo", "fe80::1%25lo"} {
			l.refused(t, l.dial(t, host, widePort))
		}
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("refusals took %s: something was dialled", took)
		}
	})
	l.row(t, "A6 IPv4 in IPv6 form", func(t *testing.T) {
		for _, host := range []string{"::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:127.0.0.1"} {
			l.went(t, l.dial(t, host, echoPort)) // the same verdict as 127.0.0.1
		}
		before := l.echo.settled()
		for _, host := range []string{"127.0.0.9", "::ffff:127.0.0.9", "::ffff:7f00:9", "10.0.0.5", "::ffff:10.0.0.5", "::ffff:0a00:5", "64:ff9b::10.0.0.5"} {
			l.refused(t, l.dial(t, host, echoPort))
		}
		l.echo.silent(t, before)
	})
	l.row(t, "A8 numbers as hosts", func(t *testing.T) {
		before := l.echo.settled()
		for _, host := range []string{"127.1", "0177.0.0.1", "2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.0.0.01", "127.0.0.1.0x0", "1", "0"} {
			for _, port := range []string{echoPort, widePort} {
				if a := l.dial(t, host, port); a.code() != protocol.CodeInvalid {
					t.Errorf("%s: %s", host, a.code())
				} else {
					l.refused(t, a)
				}
			}
		}
		l.echo.silent(t, before)
		l.wide.silent(t, 0)
	})
	l.row(t, "A9 one form of a name", func(t *testing.T) {
		for _, host := range []string{"localhost", "LOCALHOST", "LocalHost", "localhost."} {
			l.went(t, l.dial(t, host, echoPort)) // the rule says LOCALHOST
		}
		before := l.echo.settled()
		for _, host := range []string{"localhost..", " localhost", "localhost ", "localhost\t", "localhost\x00.evil", "localhost%00.evil", "localhost\n", "127.0.0.1.", "127.0.0.1 ", ".localhost",
			"local host", "locаlhost", "xn--lochost-9fg", "localhost:" + echoPort, "localhost/", "localhost@127.0.0.1", "user@localhost", ""} {
			l.refused(t, l.dial(t, host, echoPort))
		}
		l.echo.silent(t, before)
	})
	l.row(t, "A10 brackets", func(t *testing.T) {
		before := l.echo.settled()
		for _, host := range []string{"[localhost]", "[127.0.0.1]", "[::1]x", "[::1]", "::1]", "[::1", "[]", "[::ffff:127.0.0.1]"} {
			l.refused(t, l.dial(t, host, echoPort))
			l.refused(t, l.dial(t, host, widePort))
		}
		l.echo.silent(t, before)
		l.wide.silent(t, 0)
	})
	l.row(t, "A17 labels of a pattern", func(t *testing.T) {
		for _, host := range []string{"corp", "evilcorp", "a.b.corp", "corp.evil.com", ".corp", "*.corp", "a.corp.evil", "-.corp.", "a..corp"} {
			l.refused(t, l.dial(t, host, widePort))
		}
		l.wide.silent(t, 0)
	})
	l.row(t, "A20 redirects", func(t *testing.T) {
		l.web.take()
		for _, to := range []string{"port", "metadata", "own", "file", "loop", "denied-path"} {
			a := l.ask(t, request("web", "GET", "/v1/redirect/"+to), "")
			if a.status != 302 && a.code() == "" {
				t.Errorf("%s: not handed on as it came: %d", to, a.status)
			}
			if n := len(l.web.take()); n != 1 {
				t.Errorf("%s: %d requests", to, n)
			}
			r := request("follow", "GET", "/v1/redirect/"+to)
			r.Header = http.Header{"Authorization": {"Bearer " + canary}, "Cookie": {canary}}
			if a := l.ask(t, r, ""); a.status == 200 || strings.Contains(a.body, "hello") || strings.Contains(a.body, "root:") {
				t.Errorf("%s was followed: %+v", to, a)
			}
			if n := len(l.web.take()); n > 11 {
				t.Errorf("%s: %d requests", to, n)
			}
		}
		if got := l.lost.take(); len(got) > 0 {
			t.Errorf("a redirect led to a target that is not allowed: %s", got[0].URL)
		}
		l.wide.silent(t, 0)
	})
	l.row(t, "A21 another host or path", func(t *testing.T) { l.anotherHost(t) })
	l.row(t, "A22 other methods and protocols", func(t *testing.T) {
		l.web.take()
		for _, method := range []string{"CONNECT", "TRACE", "PUT", "DELETE", "PRI", "get", "GET ", "GET\r\nX: y", "G\x00ET", "*"} {
			l.refused(t, l.ask(t, request("web", method, "/v1/x"), ""))
		}
		for _, h := range []http.Header{{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}}, {"Upgrade": {"h2c"}, "Connection": {"Upgrade, HTTP2-Settings"}, "Http2-Settings": {"AAMAAABkAAQAAP__"}}} {
			r := request("web", "GET", "/v1/x")
			r.Header = h
			if a := l.ask(t, r, ""); a.status == 101 {
				t.Error("the target's protocol was switched")
			}
		}
		for _, got := range l.web.take() {
			if got.Header.Get("Upgrade") != "" || got.Header.Get("Http2-Settings") != "" {
				t.Errorf("an upgrade reached the target: %v", got.Header)
			}
		}
	})
	l.row(t, "A23 proxies of the environment", func(t *testing.T) {
		l.failed(t, l.ask(t, request("far", "GET", "/x"), "")) // would be answered by the proxy
		_ = l.dial(t, "192.0.2.9", "1")
		l.proxy.silent(t, 0)
	})
	l.row(t, "A25 TLS of a target", func(t *testing.T) {
		for name, target := range l.tls {
			if name == "good" {
				continue
			}
			a := l.ask(t, request("tls-"+name, "GET", "/x"), "")
			if a.code() == "" {
				t.Errorf("%s: %d %.200s", name, a.status, a.body)
			}
			if strings.Contains(a.body, "x509") || strings.Contains(a.body, "tls:") {
				t.Errorf("%s: inner detail: %s", name, a.body)
			}
			if got := target.take(); len(got) > 0 {
				t.Errorf("%s: the target got %s", name, got[0].URL)
			}
		}
	})
	l.row(t, "A26 TLS of a database stripped", func(t *testing.T) {
		a := l.ask(t, database(protocol.OpQuery, "mitm"), `{"sql":"select 1"}`)
		l.failed(t, a)
		if l.mitm.count.Load() == 0 {
			t.Error("the server was not tried")
		}
	})
	l.row(t, "A29 one answer to all that is not allowed", func(t *testing.T) { l.sameAnswer(t) })
	l.row(t, "A30 an agent of the group with a narrower file", func(t *testing.T) {
		narrow := newSite(t, l.relay, fmt.Sprintf("tcp:\n  erp: {host: 127.0.0.1, port: %d}\n", l.canary.port))
		before := l.canary.count.Load()
		narrow.refused(t, narrow.dial(t, "127.0.0.1", echoPort))
		narrow.refused(t, narrow.ask(t, request("web", "GET", "/v1/x"), ""))
		l.refused(t, l.dial(t, "127.0.0.1", canaryPort))
		l.canary.silent(t, before)
		narrow.healthy(t)
	})
	l.row(t, "A31 on behalf of another", func(t *testing.T) {
		r := dialTo("127.0.0.1", l.canary.port)
		r.Principal, r.Connection = "usr_boss", "con_allowed"
		a := l.ask(t, r, "")
		l.refused(t, a) // nobody is somebody here
		ev := l.event(t, a.id)
		if ev.Principal != "" || ev.Claimed["principal"] != "usr_boss" || ev.Claimed["connection"] != "con_allowed" {
			t.Errorf("what the relay claims stands as fact: %s", ev.raw)
		}
		l.canary.silent(t, 0)
	})
	l.row(t, "A28 a port scan", func(t *testing.T) { l.portScan(t) })
	if !t.Failed() {
		complete(t, "A")
	}
}

// secondRequest pipelines a second request that names another target behind a first one that is allowed.
func (l *lan) secondRequest(t *testing.T) {
	evil := "POST /v1/tcp/-/dial?host=127.0.0.1&port=" + strconv.Itoa(l.canary.port) + " HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: fairlead-dial\r\n\r\n"
	// A dial: what follows the request are bytes for its target, and nothing else.
	id := nextID()
	st, err := l.relay.tunnel(t, l.id).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = st.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(st, "POST /v1/tcp/erp/dial HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: fairlead-dial\r\nFairlead-Request-Id: "+id+"\r\n\r\n"+evil)
	br := bufio.NewReader(st)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("%v %v", resp, err)
	}
	b := make([]byte, len(evil))
	if _, err := io.ReadFull(br, b); err != nil || string(b) != evil {
		t.Errorf("the bytes behind a dial went elsewhere: %q, %v", b, err)
	}
	st.Close()
	// Every other kind of stream: one request, one answer, end.
	for name, first := range map[string]string{
		"http":      "POST /v1/http/web/request?method=GET&target=%2Fv1%2Fx HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: ID\r\nContent-Length: 0\r\n\r\n",
		"database":  "POST /v1/database/mitm/query HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: ID\r\nContent-Length: 18\r\n\r\n" + `{"sql":"select 1"}`,
		"files":     "GET /v1/files/none/list HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: ID\r\n\r\n",
		"notice":    "POST /v1/notice HTTP/1.1\r\nHost: agent\r\nContent-Length: 17\r\n\r\n" + `{"kind":"nosuch"}`,
		"malformed": "GET /nowhere HTTP/1.1\r\nHost: agent\r\n\r\n",
	} {
		second := nextID()
		got := l.raw(t, strings.Replace(first, "ID", nextID(), 1)+strings.Replace(evil, "Host: agent", "Host: agent\r\nFairlead-Request-Id: "+second, 1))
		if n := strings.Count(got, "HTTP/1.1 "); n != 1 {
			t.Errorf("%s: %d answers on one stream:\n%.600s", name, n, got)
		}
		l.events(t)
		if ev, ok := l.audit.byID[second]; ok {
			t.Errorf("%s: the second request of a stream was served: %s", name, ev.raw)
		}
	}
	l.canary.silent(t, 0)
}

// anotherHost tries to have the HTTP connector speak to another host or path than the profile's.
func (l *lan) anotherHost(t *testing.T) {
	l.web.take()
	own := l.web.Listener.Addr().String()
	for _, target := range []string{"//evil.example/v1/x", "/v1/../admin", "/v1/..%2fadmin", "/v1/%2e%2e/admin", "/admin", "/v1x", "/api/v1/x", `/v1/..\admin`, "/v1//../../admin", "/v1/x#@evil", "/v1/%00", "/v1/x\r\nHost: evil", "/v1/x y", "/v1/.;/admin"} {
		a := l.ask(t, request("web", "GET", target), "")
		for _, got := range l.web.take() {
			if got.Host != own || !strings.HasPrefix(got.URL.Path, "/api/v1/") || strings.Contains(got.URL.Path, "..") {
				t.Errorf("%q reached the target as %s %s", target, got.Host, got.RequestURI)
			}
		}
		if a.code() != "" {
			l.refused(t, a)
		}
	}
	for _, target := range []string{"http://evil.example/v1/x", "evil.example/v1/x", "*", "", "@evil/v1/x"} {
		l.refused(t, l.ask(t, request("web", "GET", target), ""))
	}
	r := request("web", "GET", "/v1/x")
	r.Header = http.Header{"Host": {"evil"}, "X-Forwarded-Host": {"evil"}, "X-Forwarded-For": {"127.0.0.1"}, "Forwarded": {"host=evil"}, "X-Original-Url": {"/admin"}, "X-Rewrite-Url": {"/admin"},
		"Proxy-Authorization": {"x"}, "Connection": {"X-Secret, close"}, "X-Secret": {"hop"}, "Te": {"trailers"}, "X-Real-Ip": {"127.0.0.1"}, "Fairlead-Evil": {"x"}}
	l.went(t, l.ask(t, r, ""))
	for _, got := range l.web.take() {
		if got.Host != own {
			t.Errorf("host %q", got.Host)
		}
		for _, k := range []string{"X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "X-Original-Url", "X-Rewrite-Url", "Proxy-Authorization", "X-Secret", "Te", "X-Real-Ip", "Fairlead-Evil", "Fairlead-Request-Id"} {
			if v := got.Header.Values(k); len(v) > 0 {
				t.Errorf("%s reached the target: %q", k, v)
			}
		}
	}
}

// sameAnswer asks for open, closed, filtered and unknown targets, none of them allowed, and compares bodies and times.
func (l *lan) sameAnswer(t *testing.T) {
	closed, open := listen(t, "127.0.0.1", nil), listen(t, "127.0.0.1", echo)
	closed.Close()
	targets := []struct {
		host string
		port int
	}{{"127.0.0.1", open.port}, {"127.0.0.1", closed.port}, {"127.0.0.1", l.canary.port} /* a guarded database */, {"192.0.2.1", 9}, {"no-such-name.example", 443}, {"localhost", l.canary.port}, {"10.0.0.5", l.echo.port}, {"169.254.169.254", 80}}
	body := ""
	took := make([][]time.Duration, len(targets))
	for range 11 { // in turns, so that a busy machine slows all alike
		for i, at := range targets {
			started := time.Now()
			a := l.dial(t, at.host, strconv.Itoa(at.port))
			took[i] = append(took[i], time.Since(started))
			l.refused(t, a)
			a.problem.RequestID, a.problem.Rule = "", "" // the rule is the site's word to its users; it tells nothing of the network
			if text := fmt.Sprintf("%d %+v", a.status, a.problem); body == "" {
				body = text
			} else if text != body {
				t.Errorf("%s:%d is told apart:\n%s\n%s", at.host, at.port, text, body)
			}
		}
	}
	var medians []time.Duration
	for _, d := range took {
		slices.Sort(d)
		medians = append(medians, d[len(d)/2])
	}
	open.silent(t, 0)
	if spread := slices.Max(medians) - slices.Min(medians); spread > 20*time.Millisecond {
		t.Errorf("times tell targets apart: %v", medians)
	}
	l.canary.silent(t, 0)
}
