//go:build linux

package hostile_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// small is a site with one target of each kind, for what is tried on single streams.
type small struct {
	*site
	echo, canary *listener
}

func newSmall(t *testing.T) *small {
	t.Helper()
	s := &small{echo: listen(t, "127.0.0.1", echo), canary: listen(t, "127.0.0.1", echo)}
	dir := t.TempDir()
	db := openSQL(t, "sqlite", filepath.Join(dir, "lite.db"))
	if _, err := db.Exec(people + "with recursive x(n) as (select 3 union all select n+1 from x where n < 200) insert into notes select n, 'x' from x"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int64{"a.txt": 6, "big.bin": 64 << 20} {
		f, err := os.Create(filepath.Join(dir, "in", name))
		if err == nil {
			err = f.Truncate(size)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	s.site = newSite(t, newRogue(t), fmt.Sprintf(`
tcp:
  erp: {host: 127.0.0.1, port: %d}
files:
  in: {base: %s, allow: [list, read, write], max_size: 100MB, reserve_percent: 0, reserve_bytes: 1MiB}
database:
  lite: {adapter: sqlite, path: %s, allow: {mode: read_only, max_rows: 100, timeout: 2s}, mask: {columns: [ssn]}}
  till: {adapter: sqlite, path: %s, allow: {mode: read_write, timeout: 2s}}
`, s.echo.port, filepath.Join(dir, "in"), filepath.Join(dir, "lite.db"), filepath.Join(dir, "lite.db")))
	return s
}

func (s *small) query(t testing.TB) {
	t.Helper()
	s.went(t, s.ask(t, database(protocol.OpQuery, "lite"), statement("select 1")))
}

// TestDeniedRequestDoesNotCloseTunnel: refusals of every kind leave the tunnel and its other streams alone.
func TestDeniedRequestDoesNotCloseTunnel(t *testing.T) {
	s := newSmall(t)
	before := s.relay.tunnel(t, s.id)
	r := dialTo("", 0)
	r.Profile = "erp"
	a, st := s.open(t, r, "")
	s.went(t, a)
	defer st.Close()
	for range 20 {
		s.refused(t, s.ask(t, dialTo("192.0.2.1", 22), ""))
		s.refused(t, s.ask(t, file(protocol.OpDelete, "in", "a.txt"), ""))
		s.refused(t, s.ask(t, database(protocol.OpQuery, "lite"), statement("delete from notes")))
		s.refused(t, s.ask(t, request("none", "GET", "/x"), ""))
	}
	if _, err := io.WriteString(st, "ping"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(st, b); err != nil || string(b) != "ping" {
		t.Errorf("the open stream: %q, %v", b, err)
	}
	if s.relay.tunnel(t, s.id) != before {
		t.Error("the tunnel was lost")
	}
	s.query(t)
	s.healthy(t)
}

// TestMalformedStreams sends what is not, or not quite, HTTP/1.1 (D16 within a stream).
func TestMalformedStreams(t *testing.T) {
	s := newSmall(t)
	before := s.relay.tunnel(t, s.id)
	evil := "POST /v1/tcp/-/dial?host=127.0.0.1&port=" + strconv.Itoa(s.canary.port) + " HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: fairlead-dial\r\nFairlead-Request-Id: req_smuggled\r\n\r\n"
	query := "POST /v1/database/till/exec HTTP/1.1\r\nHost: agent\r\n"
	body := `{"sql":"delete from notes"}`
	write := "PUT /v1/files/in/write?path=made.txt HTTP/1.1\r\nHost: agent\r\n"
	for name, c := range map[string]struct {
		text   string
		status string // "" when no answer or any refusal will do; never a 2xx
	}{
		"nothing":                      {"", ""},
		"garbage":                      {strings.Repeat("\x00\xff\x16\x03", 5000), ""},
		"a TLS hello":                  {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("A", 512), ""},
		"HTTP/2 preface":               {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", ""},
		"h2c upgrade":                  {"GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", ""},
		"HTTP/0.9":                     {"GET /v1/files/in/list\r\n\r\n", ""},
		"HTTP/9.9":                     {"GET /v1/files/in/list HTTP/9.9\r\n\r\n", ""},
		"CONNECT":                      {"CONNECT 127.0.0.1:" + strconv.Itoa(s.canary.port) + " HTTP/1.1\r\nHost: agent\r\n\r\n", "4"},
		"TRACE":                        {"TRACE /v1/files/in/list HTTP/1.1\r\nHost: agent\r\nX: " + canary + "\r\n\r\n", "4"},
		"OPTIONS *":                    {"OPTIONS * HTTP/1.1\r\nHost: agent\r\n\r\n", ""},
		"absolute form":                {"POST http://127.0.0.1:" + strconv.Itoa(s.canary.port) + "/v1/nowhere HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n", "4"},
		"no host":                      {"GET /v1/files/in/list HTTP/1.1\r\n\r\n", "400"},
		"two hosts":                    {"GET /v1/files/in/list HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"},
		"a header of 2 MB":             {"GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\nX: " + strings.Repeat("x", 2<<20) + "\r\n\r\n", "431"},
		"100,000 headers":              {"GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\n" + strings.Repeat("X: 12345678\r\n", 100_000) + "\r\n", "431"},
		"a request line of 2 MB":       {"GET /v1/files/in/list?path=" + strings.Repeat("x", 2<<20) + " HTTP/1.1\r\nHost: agent\r\n\r\n", "431"},
		"a folded header":              {"GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\nX: a\r\n b\r\n\r\n", ""},
		"space before the colon":       {"GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\nX : a\r\n\r\n", "400"},
		"NUL in a header":              {"GET /v1/files/in/list HTTP/1.1\r\nHost: agent\r\nX: a\x00b\r\n\r\n", "400"},
		"length and chunks":            {query + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, "4"},
		"two lengths":                  {query + "Content-Length: 27\r\nContent-Length: 28\r\n\r\n" + body + "x", "400"},
		"lengths in a list":            {query + "Content-Length: 27, 28\r\n\r\n" + body + "x", "400"},
		"a negative length":            {query + "Content-Length: -1\r\n\r\n" + body, "400"},
		"a length with a sign":         {query + "Content-Length: +27\r\n\r\n" + body, "400"},
		"a length beyond 64 bits":      {query + "Content-Length: 99999999999999999999\r\n\r\n" + body, "400"},
		"unknown transfer encoding":    {query + "Transfer-Encoding: gzip\r\n\r\n" + body, "501"},
		"chunked twice":                {query + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", ""},
		"chunked in disguise":          {query + "Transfer-Encoding: \x0bchunked\r\n\r\n1b\r\n" + body + "\r\n0\r\n\r\n", ""},
		"chunk size no number":         {write + "Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", ""},
		"chunk size beyond 64 bits":    {write + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc", ""},
		"negative chunk":               {write + "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", ""},
		"a chunk cut":                  {write + "Transfer-Encoding: chunked\r\n\r\nff\r\nabc", ""},
		"chunks that do not end":       {write + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", ""},
		"a chunk extension of 1 MB":    {write + "Transfer-Encoding: chunked\r\n\r\n3;" + strings.Repeat("x", 1<<20) + "\r\nabc\r\n0\r\n\r\n", ""},
		"a body that is short":         {write + "Content-Length: 100\r\n\r\nabc", ""},
		"trailers that forge":          {query + "Transfer-Encoding: chunked\r\nTrailer: Fairlead-Limits\r\n\r\n1\r\n{\r\n0\r\nFairlead-Limits: {}\r\n\r\n", "4"},
		"a second request":             {"GET /v1/files/in/nope HTTP/1.1\r\nHost: agent\r\n\r\n" + evil, "501"},
		"keep-alive and a second one":  {"GET /v1/files/in/nope HTTP/1.1\r\nHost: agent\r\nConnection: keep-alive\r\n\r\n" + evil, "501"},
		"HTTP/1.0 kept alive":          {"GET /v1/files/in/nope HTTP/1.0\r\nHost: agent\r\nConnection: keep-alive\r\n\r\n" + evil, "501"},
		"escaped path":                 {"GET /v1/files/in%2flist HTTP/1.1\r\nHost: agent\r\n\r\n", "4"},
		"dots in the path":             {"GET /v1/files/../files/in/list HTTP/1.1\r\nHost: agent\r\n\r\n", "4"},
		"another version":              {"GET /v2/files/in/list HTTP/1.1\r\nHost: agent\r\n\r\n", "404"},
		"upgrade to another protocol":  {"POST /v1/tcp/erp/dial HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "400"},
		"dial without upgrade":         {"POST /v1/tcp/erp/dial HTTP/1.1\r\nHost: agent\r\n\r\n", "400"},
		"update (no such message)":     {"POST /v1/agent/self/update HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\n\r\n", "501"},
		"the relay's own paths":        {"POST /v1/enroll HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\n\r\n{}", "404"},
		"pprof":                        {"GET /debug/pprof/ HTTP/1.1\r\nHost: agent\r\n\r\n", "4"},
		"metrics":                      {"GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n", "4"},
		"a body where none is":         {"GET /v1/files/in/list?path=%00 HTTP/1.1\r\nHost: agent\r\nContent-Length: 999999999\r\n\r\n", "4"},
		"statement body of another op": {query + "Content-Length: 17\r\n\r\n" + `{"statements":[]}`, "400"},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.half(t, c.text)
			if n := strings.Count(got, "HTTP/1."); n > 1 {
				t.Errorf("%d answers: %.500q", n, got)
			}
			if strings.Contains(got, canary) {
				t.Errorf("it echoes: %.300q", got)
			}
			_, status, _ := strings.Cut(got, " ")
			if !strings.HasPrefix(status, c.status) || c.status == "" && strings.HasPrefix(status, "2") && strings.Contains(c.text, "write?") {
				t.Errorf("want %s: %.300q", c.status, got)
			}
		})
	}
	s.canary.silent(t, 0)
	s.events(t)
	if ev, ok := s.audit.byID["req_smuggled"]; ok {
		t.Errorf("a smuggled request was served: %s", ev.raw)
	}
	if a := s.ask(t, file(protocol.OpRead, "in", "made.txt"), ""); a.code() != protocol.CodeNotFound {
		t.Errorf("a malformed upload is in place: %s", a.body)
	}
	if a := s.ask(t, database(protocol.OpQuery, "lite"), statement("select count(*) from notes")); !strings.Contains(a.body, "[200]") {
		t.Errorf("a malformed request changed the database: %s", a.body)
	}
	if s.relay.tunnel(t, s.id) != before {
		t.Error("the tunnel was lost")
	}
	s.healthy(t)
}

// half writes to a new stream, ends its own side and reads all that comes.
func (s *site) half(t testing.TB, text string) string {
	t.Helper()
	st, err := s.relay.tunnel(t, s.id).Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = st.SetDeadline(time.Now().Add(40 * time.Second))
	wrote := make(chan struct{})
	go func() { defer close(wrote); _, _ = io.WriteString(st, text); _ = st.CloseWrite() }()
	b, _ := io.ReadAll(st)
	st.Close()
	<-wrote
	return string(b)
}

// TestHeadersThatWiden: what a relay says in headers can narrow and never widen.
func TestHeadersThatWiden(t *testing.T) {
	s := newSmall(t)
	raw := func(path, headers, body string) answer {
		id := nextID()
		a, st := s.send(t, "POST "+path+" HTTP/1.1\r\nHost: agent\r\nFairlead-Request-Id: "+id+"\r\n"+headers+"Content-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		st.Close()
		a.id = id
		return a
	}
	all := statement("select * from notes")
	for _, limits := range []string{`{"max_rows":-1}`, `{"max_bytes":-5}`, `{"unmask":["ssn"]}`, `{"mode":"read_write"}`, `{"timeout":"1h"}`, `{"max_rows":1e30}`, `{"max_rows":99999999999999999999}`, `{"max_rows":"5"}`, `{} {}`, `[]`, `{`, `{"mask_columns":"ssn"}`, `"x"`,
		strings.Repeat("[", 5000)} {
		s.refused(t, raw("/v1/database/lite/query", "Fairlead-Limits: "+limits+"\r\n", all))
	}
	s.refused(t, raw("/v1/database/lite/query", "Fairlead-Limits: {}\r\nFairlead-Limits: {}\r\n", all))
	for _, limits := range []string{`{"max_rows":9223372036854775807}`, `{"max_rows":0}`, `{"max_bytes":9223372036854775807}`, `{"read_only":false}`, `{"mask_columns":[]}`, `null`} {
		a := raw("/v1/database/lite/query", "Fairlead-Limits: "+limits+"\r\n", all)
		if n := strings.Count(a.body, "\n["); n != 100 || !strings.Contains(a.body, `"truncated":"max_rows"`) {
			t.Errorf("%s: %d rows, %.300s", limits, n, a.body)
		}
		a = raw("/v1/database/lite/query", "Fairlead-Limits: "+limits+"\r\n", statement("select ssn from people"))
		if strings.Contains(a.body, "111-22") {
			t.Errorf("%s took a mask away: %s", limits, a.body)
		}
		s.refused(t, raw("/v1/database/lite/exec", "Fairlead-Limits: "+limits+"\r\n", statement("delete from notes")))
	}
	if a := raw("/v1/database/lite/query", "Fairlead-Limits: "+`{"max_rows":7}`+"\r\n", all); strings.Count(a.body, "\n[") != 7 {
		t.Errorf("it does not narrow: %.200s", a.body)
	}
	s.refused(t, raw("/v1/database/till/exec", "Fairlead-Limits: "+`{"read_only":true}`+"\r\n", statement("delete from notes")))
	// A constraint that the agent does not know means that it does nothing.
	for _, require := range []string{"two_person", "limits,approval", "LIMITS", "limits, limits", strings.Repeat("x", 10_000)} {
		a := raw("/v1/database/till/exec", "Fairlead-Require: "+require+"\r\n", statement("delete from notes"))
		if a.code() != protocol.CodeUnsupported && a.code() != protocol.CodeTooLarge {
			t.Errorf("%.40q: %s %.200s", require, a.code(), a.body)
		}
		s.refused(t, a)
	}
	for _, deadline := range []string{"0", "-1", "1e9", "99999999999999999999", "9223372036854775807", "2026-01-01", "1h", "01"} {
		s.refused(t, raw("/v1/database/lite/query", "Fairlead-Deadline-Ms: "+deadline+"\r\n", all))
	}
	started := time.Now() // a long deadline does not stretch the site's own two seconds
	a := raw("/v1/database/lite/query", "Fairlead-Deadline-Ms: 31000000000\r\n", statement("with recursive x(n) as (select 1 union all select n+1 from x) select count(*) from x"))
	if took := time.Since(started); a.code() != protocol.CodeTimeout || took > 10*time.Second {
		t.Errorf("%s after %s", a.code(), took)
	}
	// Who asks is the relay's claim, and nothing turns on it.
	for _, who := range []string{"usr_root", "agt_a", "system", strings.Repeat("u", 128)} {
		a := raw("/v1/database/lite/query", "Fairlead-Principal: "+who+"\r\nFairlead-Connection: con_x\r\n", statement("select 1"))
		s.went(t, a)
		if ev := s.event(t, a.id); ev.Principal != "" || ev.Claimed["principal"] != who || ev.Claimed["connection"] != "con_x" {
			t.Errorf("%.20s: %s", who, ev.raw)
		}
	}
	for _, h := range []string{"Fairlead-Principal: a b\r\n", "Fairlead-Principal: a\r\nFairlead-Principal: b\r\n", "Fairlead-Principal: " + strings.Repeat("u", 129) + "\r\n", "Fairlead-Connection: {\"x\":1} \r\n"} {
		a := raw("/v1/database/lite/query", h, statement("select 1"))
		if strings.Contains(h, "Connection") {
			continue // visible ASCII is an id, odd as it may look
		}
		s.refused(t, a)
	}
	if a := s.ask(t, database(protocol.OpQuery, "lite"), statement("select count(*) from notes")); !strings.Contains(a.body, "[200]") {
		t.Errorf("the database has changed: %s", a.body)
	}
	s.healthy(t)
}

// TestStreamsThatAreNeverRead: answers that nobody takes, and requests that never end, cost bounded memory and no one else.
func TestStreamsThatAreNeverRead(t *testing.T) {
	s := newSmall(t)
	tun := s.relay.tunnel(t, s.id)
	before := s.rss(t)
	var open []tunnel.Stream
	defer func() {
		for _, st := range open {
			st.Close()
		}
	}()
	for i := range 300 {
		st, err := tun.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, st)
		text := "GET /v1/files/in/read?path=big.bin HTTP/1.1\r\nHost: agent\r\n\r\n"
		switch i % 3 {
		case 1:
			text = "PUT /v1/files/in/write?path=slow" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: agent\r\nContent-Length: 1000\r\n\r\nx"
		case 2:
			text = "GET /v1/files/in/read?pa" // the rest of the head never comes
		}
		_ = st.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.WriteString(st, text); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		started := time.Now()
		s.query(t)
		if took := time.Since(started); took > 5*time.Second {
			t.Errorf("another stream waited %s", took)
		}
	}
	if grown := s.rss(t) - before; grown > 200<<20 {
		t.Errorf("300 stuck streams cost %d MiB", grown>>20)
	}
	s.healthy(t)
	if s.relay.tunnel(t, s.id) != tun {
		t.Error("the tunnel was lost")
	}
}

// TestUnknownNotices: a notice can only say what is known, and nothing that widens.
func TestUnknownNotices(t *testing.T) {
	s := newSmall(t)
	tun := s.relay.tunnel(t, s.id)
	notice := func(method, body string) answer {
		a, st := s.send(t, method+" "+protocol.PathNotice+" HTTP/1.1\r\nHost: agent\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
		st.Close()
		return a
	}
	for _, body := range []string{`{"kind":"update","url":"https://evil"}`, `{"kind":"exec"}`, `{"kind":"reload"}`, `{"kind":"config","reason":"version: 1"}`, `{"kind":""}`, `{"kind":"DRAIN"}`, `{}`, `[]`, `x`, ``, `{"kind":1}`, `{"kind":"` + strings.Repeat("x", 100_000) + `"}`,
		strings.Repeat("[", 60_000)} {
		if a := notice("POST", body); a.code() != protocol.CodeUnsupported && a.code() != protocol.CodeInvalid {
			t.Errorf("%.60q: %d %s", body, a.status, a.code())
		}
	}
	if a := notice("GET", ""); a.status != http.StatusBadRequest {
		t.Errorf("GET: %d", a.status)
	}
	for range 50 { // words that are known and untrue
		if a := notice("POST", `{"kind":"drain","retry_ms":9223372036854775807}`); a.status != 200 {
			t.Errorf("%d", a.status)
		}
		if a := notice("POST", `{"kind":"revoked","retry_ms":-1,"reason":"\u001b[2J\nforged line"}`); a.status != 200 {
			t.Errorf("%d", a.status)
		}
	}
	if strings.Contains(s.log.String(), "\nforged") || strings.Contains(s.log.String(), "\x1b") {
		t.Error("the agent's log was forged")
	}
	s.query(t)
	s.healthy(t)
	if s.relay.tunnel(t, s.id) != tun {
		t.Error("the tunnel was lost")
	}
}
