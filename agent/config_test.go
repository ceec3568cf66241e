package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
)

// configFolder copies a sample into a fresh folder, with the secrets that it names.
func configFolder(t *testing.T, sample string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "configs", sample))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"sales.pw": "canary-sales", "proxy.pw": "canary-proxy", "corp-ca.pem": "-----BEGIN CERTIFICATE-----\n", "agent.yaml": string(data)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "agent.yaml")
}

func TestSamplesLoad(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the samples name Unix folders")
	}
	for _, sample := range []string{"agent.yaml", "agent.full.yaml"} {
		t.Run(sample, func(t *testing.T) {
			c, err := Load(configFolder(t, sample))
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Policy()
			if err != nil {
				t.Fatal(err)
			}
			if got := c.Database["sales"].Secret.ExposeString(); got != "canary-sales" {
				t.Errorf("password is %q", got)
			}
			if d := c.Database["sales"]; d.Port != 5432 || d.TLS != "verify-full" || d.MaxConns != 5 || d.Allow.Mode != "read_only" || time.Duration(d.Allow.Timeout) != 30*time.Second {
				t.Errorf("got %+v", d)
			}
			if len(p.Offers()) == 0 || p.Digest() == "" {
				t.Error("nothing is offered")
			}
		})
	}
}

// keysOf lists every key of agent.yaml as the struct has it, names of profiles left out.
func keysOf(t reflect.Type, path string, out map[string]bool) {
	switch t.Kind() {
	case reflect.Map, reflect.Slice:
		keysOf(t.Elem(), path, out)
		return
	case reflect.Struct:
	default:
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("yaml")
		if key == "" || !f.IsExported() {
			continue
		}
		if f.Type == reflect.TypeFor[config.SecretRef]() {
			key += "_file"
		}
		sub := strings.TrimPrefix(path+"."+key, ".")
		out[sub] = true
		keysOf(f.Type, sub, out)
	}
}

// TestFullSampleAndReferenceNameEveryKey reads the struct by reflection, so that a new key cannot be forgotten.
func TestFullSampleAndReferenceNameEveryKey(t *testing.T) {
	want := map[string]bool{}
	keysOf(reflect.TypeFor[Config](), "", want)
	if len(want) < 60 {
		t.Fatalf("only %d keys were found", len(want))
	}
	data, err := os.ReadFile("../configs/agent.full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := config.Parse("agent.full.yaml", data)
	if err != nil {
		t.Fatal(err)
	}
	// Names of profiles and statements, as the sample has them, and places in lists.
	instances := func(key string) []string {
		parts := strings.Split(key, ".")
		out := []string{parts[0]}
		for i, p := range parts[1:] {
			var next []string
			for _, o := range out {
				switch {
				case i == 0 && slices.Contains([]string{"database", "files", "http", "tcp"}, parts[0]):
					for _, name := range []string{"sales", "ledger", "hr", "crm", "erp"} {
						next = append(next, o+"."+name+"."+p)
					}
				case strings.HasSuffix(o, ".statements"):
					next = append(next, o+".open_orders."+p)
				default:
					next = append(next, o+"."+p, o+"[0]."+p, o+"[1]."+p)
				}
			}
			out = next
		}
		return out
	}
	reference, err := os.ReadFile("../docs/agent-yaml.md")
	if err != nil {
		t.Fatal(err)
	}
	for key := range want {
		if !slices.ContainsFunc(instances(key), doc.Has) {
			t.Errorf("agent.full.yaml does not name %s", key)
		}
		name := key[strings.LastIndex(key, ".")+1:]
		if !bytes.Contains(reference, []byte("`"+name+"`")) {
			t.Errorf("docs/agent-yaml.md does not name %s", key)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := parse("/etc/fairlead/agent.yaml", []byte("version: 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Relay.Transport != "auto" || c.Audit.Spool != DefaultSpool || c.Audit.WhenFull != "refuse" || c.Log != (LogConfig{Level: "info", Format: "text", MaxSize: DefaultLogSize, Keep: DefaultLogKeep}) {
		t.Errorf("got %+v", c)
	}
	p, err := c.Policy()
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Offers()) != 0 {
		t.Error("an empty file offers something")
	}
}

// TestValidateNamesPlaceAndRemedy tries one fault at a time; each entry is YAML and what the fault must say.
func TestValidateNamesPlaceAndRemedy(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("uses Unix paths")
	}
	const db = "version: 1\ndatabase:\n  a:\n    adapter: postgresql\n    host: db.corp\n    database: d\n    username: u\n"
	const lite = "version: 1\ndatabase:\n  a:\n    adapter: sqlite\n    path: /d/x.db\n"
	const web = "version: 1\nhttp:\n  a:\n    allow: [{methods: [GET], path: /}]\n"
	for name, c := range map[string][2]string{
		"no version":                {"log: {level: info}\n", "1:1: version: version is missing; write: version: 1"},
		"other version":             {"version: 2\n", "1:1: version: version 2 is not known"},
		"typo":                      {"version: 1\ndatabse: {}\n", `2:1: databse: unknown key "databse"; did you mean "database"?`},
		"quic through a proxy":      {"version: 1\nrelay: {transport: quic, proxy: {url: \"http://p:1\"}}\n", "relay.transport: quic does not go through a proxy, which carries TCP alone; use auto, tcp or websocket"},
		"quic, proxy of the system": {"version: 1\nrelay: {transport: quic, proxy: {from: environment}}\n", "relay.transport: quic does not go through a proxy"},
		"address without port":      {"version: 1\nrelay: {addresses: [relay.corp]}\n", `relay.addresses[0]: "relay.corp" is not HOST:PORT`},
		"numeric address":           {"version: 1\nrelay: {addresses: [\"127.1:443\"]}\n", "is not HOST:PORT"},
		"no addresses":              {"version: 1\nrelay: {addresses: []}\n", "the list is empty"},
		"proxy with password":       {"version: 1\nrelay: {proxy: {url: \"http://u:p@proxy:1\"}}\n", "relay.proxy.url: wants http://HOST:PORT"},
		"proxy without port":        {"version: 1\nrelay: {proxy: {url: \"http://proxy\"}}\n", "relay.proxy.url"},
		"proxy without url":         {"version: 1\nrelay: {proxy: {username: a}}\n", "relay.proxy: url is missing"},
		"proxy user alone":          {"version: 1\nrelay: {proxy: {url: \"http://p:1\", username: a}}\n", "go together"},
		"proxy from nowhere":        {"version: 1\nrelay: {proxy: {from: sky}}\n", "one of: file, environment"},
		"proxy from both":           {"version: 1\nrelay: {proxy: {from: environment, url: \"http://p:1\"}}\n", "relay.proxy.from: the environment names the proxy"},
		"proxy from, with a name":   {"version: 1\nrelay: {proxy: {from: environment, username: a, password_file: x}}\n", "relay.proxy.from: the environment names the proxy"},
		"proxy from file, none":     {"version: 1\nrelay: {proxy: {from: file}}\n", "relay.proxy: url is missing"},
		"proxy user with a colon":   {"version: 1\nrelay: {proxy: {url: \"https://p:1\", username: \"a:b\", password_file: x}}\n", "a colon cannot stand in it"},
		"proxy CA without TLS":      {"version: 1\nrelay: {proxy: {url: \"http://p:1\", ca_file: x}}\n", "goes with an https proxy only"},
		"congestion":                {"version: 1\nrelay: {congestion: \"B B R\"}\n", "relay.congestion: is not a name"},
		"no adapter":                {"version: 1\ndatabase:\n  a: {host: x}\n", "3:3: database.a: adapter is missing"},
		"no host":                   {strings.Replace(db, "    host: db.corp\n", "", 1), "3:3: database.a: host is missing"},
		"A8 numeric host":           {strings.Replace(db, "db.corp", "127.1", 1), "wants text"},
		"A8 numeric host in quotes": {strings.Replace(db, "db.corp", `"127.1"`, 1), "5:5: database.a.host: host \"127.1\" looks like a number"},
		"A10 brackets":              {strings.Replace(db, "db.corp", `"[::1]"`, 1), "5:5: database.a.host"},
		"port 0":                    {db + "    port: 0\n", "8:5: database.a.port: 0 is not a port"},
		"port 65536":                {db + "    port: 65536\n", "8:11: database.a.port: 65536 is more than 65535"},
		"no username":               {strings.Replace(db, "    username: u\n", "", 1), "username is missing"},
		"no database":               {strings.Replace(db, "    database: d\n", "", 1), "database is missing"},
		"path of a server":          {db + "    path: /x\n", "8:5: database.a.path: only a sqlite profile takes path"},
		"tls typo":                  {db + "    tls: verify_full\n", `did you mean "verify-full"?`},
		"tls require":               {db + "    tls: require\n", "one of: verify-full, verify-ca, disable"},
		"CA without TLS":            {db + "    tls: disable\n    ca_file: x\n", "9:5: database.a.ca_file: a CA file has no use"},
		"inline password":           {db + "    password: hunter2\n", "8:15: database.a.password: a secret must not stand in this file"},
		"password as a set":         {db + "    password: {hunter2}\n", "8:16: database.a.password: this key is none of env, sealed, vault"},
		"password as a key":         {db + "    password: {hunter2: x}\n", "this key is none of env, sealed, vault"},
		"password with an asterisk": {db + "    password: *hunter2\n", "put text that begins with * in quotes"},
		"host with a password":      {strings.Replace(db, "db.corp", "postgres://u:hunter2@db.corp", 1), "5:5: database.a.host: the host has an @"},
		"relay with a password":     {"version: 1\nrelay: {addresses: [\"u:hunter2@relay:8443\"]}\n", "relay.addresses[0]: an address with @ is not HOST:PORT"},
		"sealed password":           {db + "    password: {sealed: x}\n", "not available in this version"},
		"max_conns 0":               {db + "    max_conns: 0\n", "database.a.max_conns"},
		"mode typo":                 {db + "    allow: {mode: readonly}\n", `did you mean "read_only"?`},
		"mode statements, none":     {db + "    allow: {mode: statements}\n", "8:13: database.a.allow.mode: mode statements without statements"},
		"refused statement":         {db + "    statements:\n      x: {sql: \"grant all on t to u\"}\n", "9:11: database.a.statements.x.sql: statement is refused"},
		"mask glob":                 {db + "    mask: {columns: [ok, \"a[b\"]}\n", "database.a.mask.columns[1]"},
		"mask detect":               {db + "    mask: {detect: [iban]}\n", "one of: payment_card, email"},
		"sqlite host":               {lite + "    host: x\n", "6:5: database.a.host: a sqlite profile takes path, not host"},
		"sqlite password":           {lite + "    password_file: x\n", "database.a.password_file"},
		"sqlite relative":           {"version: 1\ndatabase: {a: {adapter: sqlite, path: x.db}}\n", "absolute path of the SQLite file"},
		"relative base":             {"version: 1\nfiles: {a: {base: srv, allow: [list]}}\n", "2:13: files.a.base: wants the absolute path"},
		"base with ..":              {"version: 1\nfiles: {a: {base: /srv/../etc, allow: [list]}}\n", "files.a.base"},
		"no base":                   {"version: 1\nfiles: {a: {allow: [list]}}\n", "files.a.base"},
		"no verbs":                  {"version: 1\nfiles: {a: {base: /srv}}\n", "allow is missing"},
		"unknown verb":              {"version: 1\nfiles: {a: {base: /srv, allow: [list, wirte]}}\n", `files.a.allow[1]: "wirte" is not known here; did you mean "write"?`},
		"verb twice":                {"version: 1\nfiles: {a: {base: /srv, allow: [list, list]}}\n", "stands twice"},
		"empty match":               {"version: 1\nfiles: {a: {base: /srv, allow: [list], match: []}}\n", "the list is empty"},
		"bad glob":                  {"version: 1\nfiles: {a: {base: /srv, allow: [list], match: [\"../x\"]}}\n", "files.a.match[0]"},
		"reserve":                   {"version: 1\nfiles: {a: {base: /srv, allow: [list], reserve_percent: 99}}\n", "reserve_percent"},
		"no base_url":               {web, "http.a.base_url"},
		"base_url with user":        {web + "    base_url: https://u:p@h/\n", "http.a.base_url"},
		"base_url with query":       {web + "    base_url: https://h/?a=b\n", "http.a.base_url"},
		"base_url ftp":              {web + "    base_url: ftp://h/\n", "http.a.base_url"},
		"base_url numeric":          {web + "    base_url: https://0x7f.1/\n", "http.a.base_url"},
		"base_url dots":             {web + "    base_url: https://h/a/../b\n", "http.a.base_url"},
		"base_url port":             {web + "    base_url: https://h:0443/\n", "http.a.base_url"},
		"tls on http":               {web + "    base_url: http://h/\n    tls: verify-full\n", "https only"},
		"no http rules":             {"version: 1\nhttp: {a: {base_url: \"https://h\"}}\n", "allow is missing"},
		"method":                    {"version: 1\nhttp: {a: {base_url: \"https://h\", allow: [{methods: [TRACE], path: /}]}}\n", "http.a.allow[0].methods[0]"},
		"path pattern":              {"version: 1\nhttp: {a: {base_url: \"https://h\", allow: [{methods: [GET], path: /a*}]}}\n", "http.a.allow[0].path: * stands for a whole segment"},
		"tcp without port":          {"version: 1\ntcp: {a: {host: h}}\n", "2:7: tcp.a: port is missing"},
		"allow without ports":       {"version: 1\nallow:\n  - host: a.corp\n", "3:5: allow[0]: ports are missing"},
		"A18 host bits":             {"version: 1\nallow: [{cidr: 10.0.0.5/8, ports: [1]}]\n", "2:10: allow[0].cidr: \"10.0.0.5/8\" has bits set behind the mask; did you mean 10.0.0.0/8"},
		"A18 mapped":                {"version: 1\ndeny: [{cidr: \"::ffff:10.0.0.0/104\"}]\n", "IPv4 network in IPv6 form"},
		"A2 port range":             {"version: 1\nallow: [{host: a, ports: [\"9-1\"]}]\n", "allow[0].ports[0]"},
		"A2 port 05432":             {"version: 1\nallow: [{host: a, ports: [05432]}]\n", "allow[0].ports[0]"},
		"entry of both":             {"version: 1\nallow: [{host: a, cidr: 10.0.0.0/8, ports: [1]}]\n", "wants either host or cidr"},
		"* at the end":              {"version: 1\nallow: [{host: \"corp.*\", ports: [1]}]\n", "the last label must be a name"},
		"small log file":            {"version: 1\nlog: {max_size: 1KB}\n", "log.max_size: 1KB is too small"},
		"too many log files":        {"version: 1\nlog: {keep: 1001}\n", "log.keep: 1001 is not in 0 to 1000"},
		"small spool":               {"version: 1\naudit: {spool: 1MB}\n", "audit.spool: 1MB is too small"},
		"when_full":                 {"version: 1\naudit: {when_full: drop}\n", "one of: refuse"},
		"profile name":              {"version: 1\ntcp: {\"a b\": {host: h, port: 1}}\n", "a profile's name begins"},
		"empty section":             {"version: 1\ndeny:\n", "2:6: deny: value is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse("/etc/fairlead/agent.yaml", []byte(c[0]))
			var fs config.Faults
			if !errors.As(err, &fs) || !strings.Contains(err.Error(), c[1]) {
				t.Errorf("got %v\nwant %s", err, c[1])
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("the secret shows")
			}
		})
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	_, err := parse("/etc/agent.yaml", []byte("version: 3\nrelay: {transport: quic, proxy: {url: \"http://p:1\"}}\nfiles: {a: {base: x}}\naudit: {spool: 1B}\n"))
	var fs config.Faults
	if !errors.As(err, &fs) || len(fs) != 5 {
		t.Errorf("got %v", err)
	}
}

func TestWarnings(t *testing.T) {
	c, err := parse("/etc/agent.yaml", []byte(`version: 1
database:
  clear: {adapter: mysql, host: db.corp, username: u, tls: disable}
  loop: {adapter: mysql, host: localhost, username: u, tls: disable}
  ca: {adapter: mysql, host: db3.corp, username: u, tls: verify-ca, allow: {dial: true}}
http:
  plain: {base_url: "http://h", allow: [{methods: [GET], path: /}]}
tcp:
  round: {host: DB.corp, port: 3306}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Warnings {
		got = append(got, w.Path)
	}
	slices.Sort(got)
	if want := []string{"database.ca.allow.dial", "database.ca.tls", "database.clear.tls", "http.plain.base_url", "tcp.round"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOwnFilesAreNotOffered is B19.
func TestOwnFilesAreNotOffered(t *testing.T) {
	root := t.TempDir()
	etc, data, srv, secrets := filepath.Join(root, "etc"), filepath.Join(root, "data"), filepath.Join(root, "srv"), filepath.Join(root, "secrets")
	for _, d := range []string{etc, data, srv, secrets, filepath.Join(data, "spool")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(etc, link); err != nil && runtime.GOOS != "windows" {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(secrets, "db.pw"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(etc, "agent.yaml")
	load := func(base, more string) (*Config, error) {
		yaml := "version: 1\nfiles:\n  f: {base: '" + base + "', allow: [list]}\n" + more
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path)
	}
	withSecret := "database:\n  d: {adapter: mysql, host: h, username: u, password_file: '" + filepath.Join(secrets, "db.pw") + "'}\n"
	for name, c := range map[string]struct{ base, more string }{
		"config":            {etc, ""},
		"config, by a link": {link, ""},
		"above the config":  {root, ""},
		"secret":            {secrets, withSecret},
		"log file":          {srv, "log: {file: '" + filepath.Join(srv, "x.log") + "'}\n"},
	} {
		t.Run("B19 "+name, func(t *testing.T) {
			if _, err := load(c.base, c.more); err == nil || !strings.Contains(err.Error(), "files.f.base") {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, base := range map[string]string{"data": data, "above data": root + "/../" + filepath.Base(root), "in data": filepath.Join(data, "spool")} {
		t.Run("B19 "+name, func(t *testing.T) {
			c, err := load(srv, withSecret)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.CheckDataDir(data); err != nil {
				t.Fatalf("a folder apart was refused: %v", err)
			}
			f := c.Files["f"]
			f.Base = base
			c.Files["f"] = f
			if err := c.CheckDataDir(data); err == nil || !strings.Contains(err.Error(), "agent's data folder") {
				t.Errorf("got %v", err)
			}
		})
	}
	// A neighbour with the same beginning is another folder.
	if err := os.Mkdir(etc+"2", 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := load(etc+"2", ""); err != nil {
		t.Errorf("B7: %v", err)
	}
}

func TestSecretsStayOut(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the samples name Unix folders")
	}
	path := configFolder(t, "agent.full.yaml")
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.canonical()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b, []byte("canary")) {
		t.Error("the canonical form holds a secret")
	}
	before, _ := c.Policy()
	for file, content := range map[string]string{"sales.pw": "rotated", "proxy.pw": "rotated", "corp-ca.pem": "other"} {
		name := filepath.Join(filepath.Dir(path), file)
		old := mustRead(t, name)
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if next, err := Load(path); err != nil || c.SameSecrets(next) {
			t.Errorf("a new %s is not told: %v", file, err)
		}
		if err := os.WriteFile(name, old, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if next, err := Load(path); err != nil || !c.SameSecrets(next) {
		t.Errorf("the same secrets differ: %v", err)
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(path), "sales.pw"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "database.sales.password_file: insecure file") {
		t.Errorf("a password that others can read: %v", err)
	}
	if err := os.Remove(filepath.Join(filepath.Dir(path), "sales.pw")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("an absent password: %v", err)
	}
	if want := []string{"corp-ca.pem", "corp-ca.pem", "corp-ca.pem", "proxy.pw", "sales.pw"}; true {
		var got []string
		for _, f := range c.SecretFiles() {
			got = append(got, filepath.Base(f))
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("secret files are %q", got)
		}
	}
	// L12: nothing of the policy comes from the environment.
	for _, k := range []string{"AGENT_ALLOW", "FAIRLEAD_ALLOW", "FAIRLEAD_DENY", "HTTP_PROXY", "ALL_PROXY"} {
		t.Setenv(k, "*")
	}
	again, err := parse(path, mustRead(t, path))
	if err != nil {
		t.Fatal(err)
	}
	after, _ := again.Policy()
	if before.Digest() == "" || !slices.EqualFunc(before.Offers(), after.Offers(), func(a, b protocol.ProfileOffer) bool {
		return a.Name == b.Name && len(a.Operations) == len(b.Operations)
	}) {
		t.Error("the environment changed the policy")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDigestTellsOfEverySetting(t *testing.T) {
	digest := func(yaml string) string {
		c, err := parse("/etc/agent.yaml", []byte(yaml))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Policy()
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	base := "version: 1\ndatabase: {a: {adapter: mysql, host: h, username: u}}\n"
	if digest(base) != digest("# comment\ndatabase:\n  a:\n    username: u\n    host: h\n    adapter: mysql\nversion: 1\n") {
		t.Error("order and comments change the digest")
	}
	for _, other := range []string{strings.Replace(base, "username: u", "username: v", 1), base + "log: {level: debug}\n", strings.Replace(base, "host: h", "host: h, tls: verify-ca", 1)} {
		if digest(other) == digest(base) {
			t.Errorf("not told by the digest: %s", other)
		}
	}
}

// TestRulesNameTheirLines: a decision leads the admin to the line that made it.
func TestRulesNameTheirLines(t *testing.T) {
	c, err := parse("/etc/agent.yaml", []byte("version: 1\nfiles:\n  hr:\n    base: /srv/hr\n    allow: [list]\nallow:\n  - {host: a.corp, ports: [1]}\ndeny:\n  - {host: b.corp}\n"))
	if err != nil {
		t.Skip("the base is no Unix path here")
	}
	p, err := c.Policy()
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []struct {
		r    protocol.Request
		rule string
		line int
	}{
		{protocol.Request{Kind: "files", Profile: "hr", Operation: "list"}, "files.hr.allow", 5},
		{protocol.Request{Kind: "files", Profile: "hr", Operation: "read", Path: "a"}, "files.hr.allow", 5},
		{protocol.Request{Kind: "tcp", Profile: "-", Operation: "dial", Host: "a.corp", Port: 1}, "allow[0]", 7},
		{protocol.Request{Kind: "tcp", Profile: "-", Operation: "dial", Host: "b.corp", Port: 1}, "deny[0]", 9},
	} {
		if d := p.Decide(operation(&q.r)); d.Rule != q.rule || d.Line != q.line {
			t.Errorf("got %s line %d, want %s line %d", d.Rule, d.Line, q.rule, q.line)
		}
	}
}
