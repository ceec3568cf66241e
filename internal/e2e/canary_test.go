//go:build linux

package e2e_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// needle is one form in which a secret would be found.
type needle struct {
	canary, form string
	bytes        []byte
}

// canaries are the secrets of a run and the forms to look for.
type canaries struct{ needles []needle }

// add plants a secret: each of its parts is looked for in every form. Parts of 12 bytes or more do not come about by chance.
func (c *canaries) add(name string, parts ...[]byte) {
	for _, p := range parts {
		if len(p) < 12 {
			panic("a canary's part is too short to be told from chance: " + name)
		}
		put := func(form string, b []byte) { c.needles = append(c.needles, needle{name, form, b}) }
		put("plain", p)
		back := slices.Clone(p)
		slices.Reverse(back)
		put("reversed", back)
		put("hex", []byte(hex.EncodeToString(p)))
		put("HEX", []byte(strings.ToUpper(hex.EncodeToString(p))))
		for skip := range 3 {
			// The characters at both ends depend on the neighbours and are cut off.
			text := base64.RawStdEncoding.EncodeToString(append(make([]byte, skip), p...))
			text = text[(skip*8+5)/6 : (skip+len(p))*8/6]
			put(fmt.Sprintf("base64 at %d", skip), []byte(text))
			put(fmt.Sprintf("base64url at %d", skip), []byte(strings.NewReplacer("+", "-", "/", "_").Replace(text)))
		}
		le, be := make([]byte, 0, 2*len(p)), make([]byte, 0, 2*len(p))
		for _, u := range utf16.Encode([]rune(string(p))) {
			le, be = binary.LittleEndian.AppendUint16(le, u), binary.BigEndian.AppendUint16(be, u)
		}
		put("UTF-16LE", le)
		put("UTF-16BE", be)
	}
}

// text plants a new secret text. Around its middle stand characters that URLs, JSON and HTML escape; its two halves have
// none, so that a half is found whatever was escaped or cut off.
func (c *canaries) text(name, special string) string {
	half := func() string {
		const letters = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
		b := make([]byte, 14)
		for i := range b {
			b[i] = letters[rand.IntN(len(letters))]
		}
		return string(b)
	}
	a, b := half(), half()
	c.add(name, []byte(a), []byte(b))
	return a + special + b
}

// find gives the canaries in b, as "name (form)".
func (c *canaries) find(b []byte) (found []string) {
	for _, n := range c.needles {
		if bytes.Contains(b, n.bytes) {
			found = append(found, n.canary+" ("+n.form+")")
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// TestTheScannerFinds is the positive control: every form, also amid other bytes.
func TestTheScannerFinds(t *testing.T) {
	var c canaries
	s := c.text("secret", `&<"é>+ `)
	quoted, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	back := []rune(s)
	slices.Reverse(back)
	var wide bytes.Buffer
	for _, u := range utf16.Encode([]rune(s)) {
		_ = binary.Write(&wide, binary.LittleEndian, u)
	}
	forms := map[string]string{"plain": s, "json": string(quoted), "url": url.QueryEscape(s), "path": url.PathEscape(s), "hex": hex.EncodeToString([]byte(s)), "HEX": fmt.Sprintf("%X", s),
		"reversed": string(back), "UTF-16": wide.String(), "first half": s[:14], "cut": s[:len(s)-20], "base64 in JSON": fmt.Sprintf(`{"x":%q}`, base64.StdEncoding.EncodeToString([]byte(`{"password":"`+s+`"}`)))}
	for n := range 6 {
		forms[fmt.Sprintf("base64 %d", n)] = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", n) + s))
		forms[fmt.Sprintf("base64url %d", n)] = base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", n) + s + "y"))
	}
	for form, text := range forms {
		if len(c.find([]byte("before\x00"+text+"\x00after"))) == 0 {
			t.Errorf("%s is not found: %q", form, text)
		}
	}
	if found := c.find([]byte(strings.Repeat("nothing here ", 1000))); len(found) > 0 {
		t.Errorf("found in nothing: %v", found)
	}
}

// TestNoSecretLeavesItsPlace: P7. Secrets of every kind go through a busy installation with many errors. Afterwards, and
// while it runs, each stands where it belongs and nowhere else: not in a log at debug level, not in a state or audit file of
// either half, not in the processes' arguments and environments, not in metrics, not in an answer.
func TestNoSecretLeavesItsPlace(t *testing.T) {
	s, admin := postgresql.open(t)
	var c canaries
	const special = `&<"é>`
	password := c.text("database password", `&<"@:/>`)
	wrong := c.text("wrong database password", "%&<>")
	inline := c.text("password written into agent.yaml", "-")
	param := c.text("parameter", special)
	literal := c.text("literal", special)
	maskedValue := c.text("masked value", special)
	content := c.text("file content", special)
	header := c.text("Authorization header", ".")
	query := c.text("URL query", "-")
	body := c.text("HTTP body", special)
	raw := c.text("raw bytes", special)
	stranger := "flt_" + c.text("stranger's token", "") + strings.Repeat("x", 15)

	for _, stmt := range []string{`drop table if exists vault`, `create table vault(id int primary key, name text unique, ssn text, n int check (n < 100))`,
		`do $$ begin create role keeper login; exception when duplicate_object then null; end $$`,
		fmt.Sprintf(`alter role keeper password '%s'`, password), `grant select, insert, update on vault to keeper`} {
		if _, err := admin.Exec(stmt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.Exec(`insert into vault values (1, 'one', $1, 1)`, maskedValue); err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/api/fail" {
			http.Error(w, "no", http.StatusInternalServerError)
		}
		if r.URL.Path == "/api/drop" {
			panic(http.ErrAbortHandler)
		}
	}))
	defer web.Close()
	db := func(name, pw, rest string) string {
		return fmt.Sprintf("  %s:\n    adapter: postgresql\n    host: 127.0.0.1\n    port: %d\n    database: test\n    username: keeper\n    password_file: %s\n    ca_file: pg.pem\n    mask: {columns: [ssn], detect: [email]}\n    allow: {%s}\n", name, s.Port, pw, rest)
	}
	yaml := "database:\n" + db("vault", "keeper.pw", "mode: read_only") + db("change", "keeper.pw", "mode: read_write") + db("locked", "wrong.pw", "mode: read_only") + db("native", "keeper.pw", "mode: read_write, dial: true") +
		"files:\n  papers: {base: DIR/papers, allow: [list, read, write], max_size: 1MB}\n" +
		"http:\n  web: {base_url: \"" + web.URL + "\", allow: [{methods: [GET, POST], path: /api/**}]}\n  gone: {base_url: \"http://" + testenv.LowPort(t, 12000) + "\", allow: [{methods: [GET, POST], path: /**}]}\n"
	i := install(t, yaml)
	i.write("keeper.pw", password+"\n", 0o600)
	i.write("wrong.pw", wrong+"\n", 0o600)
	copyCAs(t, i.dir, postgresql)
	if err := os.Mkdir(i.path("papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	sendCodes := canaryMail(t, i, &c)
	i.startAgent()
	i.connections("vault", "change", "locked", "native", "papers", "web", "gone")

	// The secrets that the installation made itself.
	join, err := mtls.ParseJoinToken(i.joinToken)
	if err != nil {
		t.Fatal(err)
	}
	token := i.adminToken[len("flt_"):]
	c.add("API token", []byte(token[:20]), []byte(token[20:]))
	c.add("join token", []byte(join.SecretText()[:20]), []byte(join.SecretText()[20:]))
	c.add("join token's text", []byte(i.joinToken[len(i.joinToken)-40:len(i.joinToken)-20]))
	kekText, err := os.ReadFile(i.path("relay/kek.key"))
	if err != nil {
		t.Fatal(err)
	}
	kek, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(kekText)))
	if err != nil || len(kek) != 32 {
		t.Fatalf("the key file holds %d bytes: %v", len(kek), err)
	}
	c.add("key-encryption key", kek, kek[:16], kek[16:])
	identity, keyFile := agentKey(t, i.path("agent"))
	c.add("agent's key", identity)

	answers := &bytes.Buffer{} // everything that a caller was told
	tell := func(err error) {
		if err == nil {
			return
		}
		b, _ := json.Marshal(err)
		fmt.Fprintf(answers, "%s\n%s\n", fullText(err), b)
	}
	must := func(what string, err error) {
		t.Helper()
		tell(err)
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what string, err error) {
		t.Helper()
		tell(err)
		if err == nil {
			t.Errorf("%s went well", what)
		}
	}
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	ask := func(connection, sql string, list ...string) error {
		rows, err := i.client.Query(ctx, connection, sqlText(sql, list...))
		_, lines, _, err := collect(t, rows, err)
		fmt.Fprintln(answers, lines)
		return err
	}
	for range 5 {
		must("a query with a parameter", ask("vault", "select id, ssn from vault where name = $1 or id = 1", quoted(param)))
		must("a query with a literal", ask("vault", "select id, upper(ssn) from vault where name <> '"+literal+"'"))
		refused("a write", ask("vault", "delete from vault where name = '"+literal+"'"))
		refused("a fault with a parameter", ask("vault", "select cast($1::text as int)", quoted(param)))
		refused("a fault with a literal", ask("vault", "select '"+literal+"'::int"))
		refused("a fault with a masked value", ask("vault", "select ssn::int from vault"))
		refused("a syntax error", ask("vault", "select '"+literal+"' from from"))
		refused("an unknown column", ask("vault", "select nothing from vault where name = '"+literal+"'"))
		refused("two statements", ask("vault", "select '"+literal+"'; select 1"))
		refused("an unclosed literal", ask("vault", "select '"+literal))
		refused("a wrong type", ask("vault", "select $1::int", `{"type":"`+param[:14]+`","value":`+quoted(param)+`}`))
		refused("a bad password", ask("locked", "select 1"))
		refused("no such profile", ask("nowhere", "select '"+literal+"'"))
		_, err := i.client.Exec(ctx, "change", sqlText("insert into vault values (2, $1, '"+literal+"', 5) on conflict (id) do update set name = excluded.name", quoted(param)))
		must("exec", err)
		_, err = i.client.Exec(ctx, "change", sqlText("insert into vault values (3, $1, null, 5)", quoted(param)))
		refused("a doubled key", err)
		_, err = i.client.Exec(ctx, "change", sqlText("insert into vault values (4, $1, '"+literal+"', 500)", quoted(param+"x")))
		refused("a failing check", err)
		_, err = i.client.Transaction(ctx, "change", protocol.TransactionBody{Statements: []protocol.Statement{{SQL: "update vault set n = 2"},
			{SQL: "insert into vault(id, n) values (9, $1::text::int)", Args: args(quoted(param))}}})
		refused("a failing transaction", err)
		_, err = i.client.Put(ctx, "papers", "secret.txt", strings.NewReader(content), int64(len(content)), client.PutOptions{})
		must("put", err)
		_, err = i.client.Put(ctx, "papers", "large.txt", strings.NewReader(strings.Repeat(content, 30000)), int64(30000*len(content)), client.PutOptions{})
		refused("a file that is too large", err)
		_, err = i.client.Put(ctx, "papers", "nowhere/x.txt", strings.NewReader(content), int64(len(content)), client.PutOptions{})
		refused("a folder that is not there", err)
		f, err := i.client.Get(ctx, "papers", "secret.txt", client.GetOptions{})
		must("get", err)
		if err == nil {
			if b, err := io.ReadAll(f); err != nil || string(b) != content {
				t.Errorf("%q, %v", b, err)
			}
			f.Close()
		}
		for _, r := range []struct{ connection, path string }{{"web", "/api/x"}, {"web", "/api/fail"}, {"web", "/api/drop"}, {"web", "/other"}, {"gone", "/x"}} {
			resp, err := i.client.Request(ctx, r.connection, "POST", r.path+"?key="+query, http.Header{"Authorization": {"Bearer " + header}}, strings.NewReader(body), int64(len(body)))
			tell(err)
			if err == nil {
				_ = resp.Write(answers)
				resp.Body.Close()
			}
		}
	}
	conn, err := i.client.Dial(ctx, "native")
	must("dial", err)
	if err == nil {
		_, _ = io.WriteString(conn, "\x00\x00\x00\x40\x00\x03\x00\x00user\x00"+raw+"\x00\x00")
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	canaryPeople(t, i, &c, must, refused)
	sendCodes(must)
	// What no client library would send.
	hc := i.http()
	for _, r := range []struct{ method, path, auth, body string }{
		{"GET", "/api/v1/whoami", "Bearer " + stranger, ""}, {"GET", "/api/v1/whoami", "Basic " + base64.StdEncoding.EncodeToString([]byte("admin:"+stranger)), ""},
		{"POST", "/api/v1/workspaces/default/connections/vault/query", "", `{"sql":"select '` + literal + `", "` + param[:14] + `": 1}`},
		{"POST", "/api/v1/workspaces/default/connections/vault/query", "", `{"sql":"select 1","args":["` + param[:14] + `"`},
		{"POST", "/api/v1/workspaces/default/connections/vault/query", "", `{"sql":12345,"args":` + quoted(param) + `}`},
		{"POST", "/api/v1/workspaces/default/tokens", "", `{"name":"x","roles":["admin"],"password":` + quoted(inline) + `}`},
		{"PUT", "/api/v1/workspaces/default/connections/papers/files/..%2f..%2fx", "", content},
		{"GET", "/api/v1/workspaces/default/connections/web/http/api/x%00?key=" + query, "", ""},
	} {
		req, err := http.NewRequest(r.method, "https://"+i.address+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		if r.auth == "" {
			r.auth = "Bearer " + i.adminToken
		}
		req.Header.Set("Authorization", r.auth)
		req.Header.Set("Content-Type", "application/json")
		resp, err := hc.Do(req)
		if err != nil {
			continue // such as a path that the client itself refuses
		}
		if resp.StatusCode < 400 {
			t.Errorf("%s %s: status %d", r.method, r.path, resp.StatusCode)
		}
		_ = resp.Write(answers)
		resp.Body.Close()
	}
	// Bad files at the site.
	for _, bad := range []string{strings.Replace(yaml, "password_file: keeper.pw", "password: \""+inline+"\"", 1),
		yaml + "database: " + inline + "\n", "relay: {proxy: {url: \"http://user:" + inline + "@proxy:3128\"}}\n" + yaml} {
		i.writeYAML(bad)
		testenv.Eventually(t, "the fault is told", func() bool {
			a, err := i.client.Agents(ctx)
			return err == nil && a[0].ReloadError != ""
		})
		answers.WriteString(i.ok("agents", "list", "--output", "json"))
		o := runProgram(t, i.env, "", program(t, "fairlead-agent"), "check", "--config", i.path("agent.yaml"))
		answers.WriteString(o.String())
		i.writeYAML(yaml)
		testenv.Eventually(t, "the good file is back", func() bool {
			a, err := i.client.Agents(ctx)
			return err == nil && a[0].ReloadError == ""
		})
	}
	o := runProgram(t, i.env, "", program(t, "fairlead-agent"), "enroll", "--data", i.path("again"), "--token-file", i.path("join.token"))
	answers.WriteString(o.String())
	if o.Exit == 0 {
		t.Error("a join token counted twice")
	}
	for _, args := range [][]string{{"audit", "list", "--limit", "0", "--output", "json"}, {"audit", "export"}, {"agents", "list"}, {"connections", "list"}, {"audit", "verify"}} {
		answers.WriteString(i.ok(args...))
	}
	resp, err := http.Get("http://" + i.health + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !bytes.Contains(metrics, []byte("fairlead_requests_total")) {
		t.Fatalf("metrics: %v", err)
	}

	// Where a secret belongs, and so must be found by the scan.
	homes := map[string]string{"keeper.pw": "database password", "wrong.pw": "wrong database password", "admin.token": "API token", "join.token": "join token",
		"relay/kek.key": "key-encryption key", "relay/mail.password": "mail password", keyFile: "agent's key", "papers/secret.txt": "file content"}
	scan := func(when string) {
		t.Helper()
		check := func(what, home string, b []byte) {
			at := false
			for _, f := range c.find(b) {
				if home != "" && strings.HasPrefix(f, home) {
					at = true
					continue
				}
				t.Errorf("%s, %s: %s", when, what, f)
			}
			if home != "" && !at {
				t.Errorf("%s: the scan does not find the %s in %s, where it is", when, home, what)
			}
		}
		files := 0
		err := filepath.WalkDir(i.dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			rel, _ := filepath.Rel(i.dir, p)
			b, err := os.ReadFile(p)
			if os.IsNotExist(err) {
				return nil // a temporary file of the database
			}
			files++
			check(rel, homes[filepath.ToSlash(rel)], b)
			check("the name "+rel, "", []byte(rel))
			return err
		})
		if err != nil || files < 12 {
			t.Fatalf("%d files scanned: %v", files, err)
		}
		for _, p := range []*process{i.relay, i.agent} {
			for _, what := range []string{"cmdline", "environ"} {
				if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.Process.Pid, what)); err == nil {
					check(p.name+" "+what, "", b)
				}
			}
		}
		check("metrics", "", metrics)
		check("answers", "", answers.Bytes())
		check("what fairlead printed", "", i.said.Bytes())
		t.Logf("%s: %d files, %d bytes of answers, %d needles", when, files, answers.Len(), len(c.needles))
	}
	scan("running")
	i.term(i.agent, 15*time.Second)
	i.term(i.relay, 15*time.Second)
	scan("stopped")
	for _, name := range []string{"relay.log", "agent.log"} {
		b, err := os.ReadFile(i.path(name))
		if err != nil || !bytes.Contains(b, []byte("level=DEBUG")) || testenv.Panicked(string(b)) != "" {
			t.Errorf("%s is not at debug level, or tells of a panic: %v", name, err)
		}
	}
}

// agentKey gives a part of the agent's private key and the file that holds it.
func agentKey(t *testing.T, data string) (part []byte, file string) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(data, "*"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if strings.Contains(block.Type, "PRIVATE KEY") {
				return block.Bytes[50:66], "agent/" + filepath.Base(f) // within the number itself and within one line of the file
			}
		}
	}
	t.Fatal("the agent's key was not found")
	return nil, ""
}
