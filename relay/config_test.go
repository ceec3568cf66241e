package relay

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
)

// configCopy puts a sample into a folder of the test's own: a working copy's modes are whatever git and umask made them.
func configCopy(t *testing.T, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "relay.yaml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func sample(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "configs", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRelaySamplesLoad(t *testing.T) {
	for _, name := range []string{"relay.yaml", "relay.full.yaml"} {
		t.Run(name, func(t *testing.T) {
			c, err := LoadConfig(configCopy(t, sample(t, name)))
			if err != nil {
				t.Fatal(err)
			}
			d := DefaultConfig()
			// The samples show the defaults, but for the file of the log: whoever copies one changes nothing else by it.
			c.Log.File = ""
			c.SignIn.Passkeys = nil // they are bound to a name, which no default knows
			if c.Listen != d.Listen || c.Congestion != d.Congestion || c.Health != d.Health || c.Agents != d.Agents || c.Audit != d.Audit || c.SignIn != d.SignIn || c.Mail != d.Mail || c.Log != d.Log {
				t.Errorf("got %+v, the defaults are %+v", c, d)
			}
			if c.KEK.File != filepath.Join(c.Data, "kek.key") || c.KEK.Env != "" || !filepath.IsAbs(c.Data) {
				t.Errorf("data folder %q, key file %q, key variable %q", c.Data, c.KEK.File, c.KEK.Env)
			}
			if c.PublicAddress != "relay.example.com:8443" {
				t.Errorf("public address is %q", c.PublicAddress)
			}
		})
	}
}

// TestFullRelaySampleNamesEveryKey reads the struct by reflection, so that a new key cannot be forgotten.
func TestFullRelaySampleNamesEveryKey(t *testing.T) {
	doc, err := config.Parse("relay.full.yaml", sample(t, "relay.full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	reference, err := os.ReadFile("../docs/relay-operation.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := configKeys(reflect.TypeFor[Config](), "")
	if len(keys) < 15 {
		t.Fatalf("only %d keys were found: %v", len(keys), keys)
	}
	for _, key := range keys {
		if !doc.Has(key) {
			t.Errorf("relay.full.yaml does not name %s", key)
		}
		if !strings.Contains(string(reference), "`"+key+"`") {
			t.Errorf("docs/relay-operation.md does not name %s", key)
		}
	}
}

// configKeys lists the paths of all keys that hold a value.
func configKeys(t reflect.Type, path string) []string {
	if t.Kind() != reflect.Struct {
		return []string{path}
	}
	var keys []string
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("yaml")
		if path != "" {
			name = path + "." + name
		}
		keys = append(keys, configKeys(t.Field(i).Type, name)...)
	}
	return keys
}

func TestBadRelayYAMLIsToldWhere(t *testing.T) {
	const good = "version: 1\npublic_address: relay.example.com:443\n"
	for _, c := range []struct {
		name, text string
		line       int
		path       string
		says       string // in message or hint
	}{
		{"another version", "version: 2\npublic_address: relay.example.com:443\n", 1, "version", "write version: 1"},
		{"no version", "public_address: relay.example.com:443\n", 0, "version", "write version: 1"},
		{"no public address", "version: 1\n", 0, "public_address", "such as relay.example.com:443"},
		{"public address without a port", "version: 1\npublic_address: relay.example.com\n", 2, "public_address", "such as relay.example.com:443"},
		{"public address without a host", "version: 1\npublic_address: \":443\"\n", 2, "public_address", "such as relay.example.com:443"},
		{"public address with port 0", "version: 1\npublic_address: relay.example.com:0\n", 2, "public_address", "1 to 65535"},
		{"unknown key", good + "listn: \":443\"\n", 3, "listn", "listen"},
		{"unknown key below", good + "agents:\n  max_tunels: 3\n", 4, "agents.max_tunels", "max_tunnels"},
		{"key twice", good + "listen: \":443\"\nlisten: \":444\"\n", 4, "listen", ""},
		{"listen without a port", good + "listen: relay\n", 3, "listen", `":8443"`},
		{"a list where text belongs", good + "listen: [\":443\"]\n", 3, "listen", ""},
		{"both kinds of key", good + "kek: {file: a.key, env: FAIRLEAD_KEK}\n", 3, "kek", "either file or env"},
		{"neither kind of key", good + "kek: {file: \"\"}\n", 3, "kek", "either file or env"},
		{"health without a port", good + "health:\n  listen: localhost\n", 4, "health.listen", "127.0.0.1:9443"},
		{"lifetime too short", good + "agents:\n  certificate_lifetime: 1s\n", 4, "agents.certificate_lifetime", "168h"},
		{"lifetime too long", good + "agents:\n  certificate_lifetime: 3000h\n", 4, "agents.certificate_lifetime", "168h"},
		{"lifetime without a unit", good + "agents:\n  certificate_lifetime: 168\n", 4, "agents.certificate_lifetime", ""},
		{"no tunnels", good + "agents: {max_tunnels: 0}\n", 3, "agents.max_tunnels", "1 to 64"},
		{"too many tunnels", good + "agents: {max_tunnels: 65}\n", 3, "agents.max_tunnels", "1 to 64"},
		{"log too small", good + "audit: {max_size: 1MB}\n", 3, "audit.max_size", "at least 16MiB"},
		{"too few rounds", good + "sign_in: {password_rounds: 100000}\n", 3, "sign_in.password_rounds", "from 210000"},
		{"too many rounds", good + "sign_in: {password_rounds: 99999999}\n", 3, "sign_in.password_rounds", "to 4200000"},
		{"e-mail without the pages that it leads to", good + "api: {pages: false}\nmail: {server: \"mail.example.com:587\", from: f@example.com, link: \"https://a.example\"}\n", 4, "mail.server", "api.pages"},
		{"e-mail without a server", good + "mail: {from: f@example.com}\n", 3, "mail.server", "leave mail out"},
		{"a mail server without a port", good + "mail: {server: mail.example.com, from: f@example.com, link: \"https://a\"}\n", 3, "mail.server", "mail.example.com:587"},
		{"e-mail in clear over a network", good + "mail: {server: \"mail.example.com:25\", tls: none, from: f@example.com, link: \"https://a\"}\n", 3, "mail.tls", "in clear"},
		{"e-mail in clear to a name", good + "mail: {server: \"localhost:25\", tls: none, from: f@example.com, link: \"https://a\"}\n", 3, "mail.tls", "in clear"},
		{"another TLS of e-mail", good + "mail: {server: \"mail.example.com:25\", tls: maybe, from: f@example.com, link: \"https://a\"}\n", 3, "mail.tls", "implicit"},
		{"a sender that is no address", good + "mail: {server: \"mail.example.com:25\", from: \"F <f@example.com>\", link: \"https://a\"}\n", 3, "mail.from", "fairlead@example.com"},
		{"a link in clear", good + "mail: {server: \"mail.example.com:25\", from: f@example.com, link: \"http://a\"}\n", 3, "mail.link", "https://relay.example.com"},
		{"a mail user without a password", good + "mail: {server: \"mail.example.com:25\", from: f@example.com, link: \"https://a\", user: u}\n", 3, "mail.user", "give both"},
		{"a mail password that is not there", good + "mail: {server: \"mail.example.com:25\", from: f@example.com, link: \"https://a\", user: u, password_file: gone}\n", 3, "mail.password_file", "nobody else"},
		{"a mail authority that is not there", good + "mail: {server: \"mail.example.com:25\", from: f@example.com, link: \"https://a\", ca_file: gone.pem}\n", 3, "mail.ca_file", "PEM file"},
		{"no e-mail at all", good + "mail: {per_workspace: 0}\n", 3, "mail.per_workspace", "1 to 10000"},
		{"too much e-mail", good + "mail: {per_recipient: 10001}\n", 3, "mail.per_recipient", "1 to 10000"},
		{"passkeys of an address", good + "sign_in: {passkeys: {id: 192.0.2.1, origins: [\"https://192.0.2.1\"]}}\n", 3, "sign_in.passkeys.id", "relay.example.com"},
		{"passkeys of a URL", good + "sign_in: {passkeys: {id: \"https://relay.example.com\", origins: [\"https://relay.example.com\"]}}\n", 3, "sign_in.passkeys.id", "no scheme"},
		{"passkeys without origins", good + "sign_in: {passkeys: {id: relay.example.com}}\n", 3, "sign_in.passkeys.origins", "https://relay.example.com"},
		{"passkeys in the clear", good + "sign_in: {passkeys: {id: relay.example.com, origins: [\"http://relay.example.com\"]}}\n", 3, "sign_in.passkeys.origins[0]", "https://HOST"},
		{"passkeys of a path", good + "sign_in: {passkeys: {id: relay.example.com, origins: [\"https://relay.example.com/\"]}}\n", 3, "sign_in.passkeys.origins[0]", "no path"},
		{"passkeys of another host", good + "sign_in: {passkeys: {id: relay.example.com, origins: [\"https://relay.example.com\", \"https://evilrelay.example.com\"]}}\n", 3, "sign_in.passkeys.origins[1]", "below it"},
		{"passkeys twice", good + "sign_in: {passkeys: {id: relay.example.com, origins: [\"https://relay.example.com\", \"https://relay.example.com\"]}}\n", 3, "sign_in.passkeys.origins[1]", "once"},
		{"old TLS", good + "api: {min_tls: \"1.1\"}\n", 3, "api.min_tls", `"1.2" or "1.3"`},
		{"TLS that is no text", good + "api: {min_tls: 1.2}\n", 3, "api.min_tls", ""},
		{"old HTTP", good + "api: {min_http: \"0.9\"}\n", 3, "api.min_http", `"1.0" or "1.1"`},
		{"certificate without a key", good + "api:\n  certificates:\n    - {certificate: a.pem}\n", 5, "api.certificates[0]", "key: FILE"},
		{"certificate that is not there", good + "api:\n  certificates:\n    - {certificate: a.pem, key: a.key}\n", 5, "api.certificates[0]", "must be there"},
		{"old HTTP under a domain", good + "api: {domain_min_http: \"0.9\"}\n", 3, "api.domain_min_http", `"1.0" or "1.1"`},
		{"pages that are no yes or no", good + "api: {pages: \"some\"}\n", 3, "api.pages", ""},
		{"ACME without TLS", good + "api: {domains: [a.example], acme: {directory: \"http://acme.example/\", agree: true}}\n", 3, "api.acme.directory", "https"},
		{"ACME without a yes", good + "api: {domains: [a.example], acme: {directory: \"https://acme.example/\"}}\n", 3, "api.acme.agree", "terms of service"},
		{"ACME without domains", good + "api: {acme: {directory: \"https://acme.example/\", agree: true}}\n", 3, "api.acme", "api.domains"},
		{"a binding without its key", good + "api: {domains: [a.example], acme: {directory: \"https://acme.example/\", agree: true, key_id: k}}\n", 3, "api.acme.key_id", "both"},
		{"a binding whose key is not there", good + "api: {domains: [a.example], acme: {directory: \"https://acme.example/\", agree: true, key_id: k, key_file: gone}}\n", 3, "api.acme.key_file", "base64url"},
		{"ACME without its authority", good + "api: {domains: [a.example], acme: {directory: \"https://acme.example/\", agree: true, ca: gone.pem}}\n", 3, "api.acme.ca", "PEM file"},
		{"domain that is no name", good + "api: {domains: [\"https://a.example\"]}\n", 3, "api.domains[0]", "data.example.com"},
		{"domain in capitals", good + "api: {domains: [A.example]}\n", 3, "api.domains[0]", "small letters"},
		{"everything as a domain", good + "api: {domains: [\"*\"]}\n", 3, "api.domains[0]", "data.example.com"},
		{"the relay's own name as a domain", good + "api: {domains: [relay.example.com]}\n", 3, "api.domains[0]", "take for themselves"},
		{"the relay's own name below a star", good + "api: {domains: [\"*.example.com\"]}\n", 3, "api.domains[0]", "take for themselves"},
		{"E3 everybody is a proxy", good + "trusted_proxies:\n  - 10.0.0.0/8\n  - 0.0.0.0/0\n", 5, "trusted_proxies[1]", "own addresses"},
		{"E3 every IPv6 address is a proxy", good + "trusted_proxies: [\"::/0\"]\n", 3, "trusted_proxies[0]", "own addresses"},
		{"E3 proxies by a star", good + "trusted_proxies: [\"*\"]\n", 3, "trusted_proxies[0]", "10.0.0.0/24"},
		{"E3 half of everybody is a proxy", good + "trusted_proxies: [128.0.0.0/1]\n", 3, "trusted_proxies[0]", "own addresses"},
		{"E3 every global IPv6 address is a proxy", good + "trusted_proxies: [\"2000::/3\"]\n", 3, "trusted_proxies[0]", "own addresses"},
		{"E3 everybody is a proxy, mapped", good + "trusted_proxies: [\"::ffff:0.0.0.0/96\"]\n", 3, "trusted_proxies[0]", ""},
		{"E3 everybody is a balancer", good + "proxy_protocol:\n  - 10.0.0.10\n  - 0.0.0.0/0\n", 5, "proxy_protocol[1]", "own addresses"},
		{"E3 every IPv6 address is a balancer", good + "proxy_protocol: [\"::/0\"]\n", 3, "proxy_protocol[0]", "own addresses"},
		{"E3 balancers by a star", good + "proxy_protocol: [\"*\"]\n", 3, "proxy_protocol[0]", "10.0.0.0/24"},
		{"E3 half of everybody is a balancer", good + "proxy_protocol: [0.0.0.0/1]\n", 3, "proxy_protocol[0]", "own addresses"},
		{"E3 every global IPv6 address is a balancer", good + "proxy_protocol: [\"2000::/3\"]\n", 3, "proxy_protocol[0]", "own addresses"},
		{"balancer with host bits", good + "proxy_protocol: [10.0.0.1/8]\n", 3, "proxy_protocol[0]", "10.0.0.0/8"},
		{"a switch where balancers belong", good + "proxy_protocol: true\n", 3, "proxy_protocol", ""},
		{"proxy with host bits", good + "trusted_proxies: [10.0.0.1/8]\n", 3, "trusted_proxies[0]", "10.0.0.0/8"},
		{"unknown level", good + "log: {level: loud}\n", 3, "log.level", "debug, info, warn or error"},
		{"unknown format", good + "log: {format: xml}\n", 3, "log.format", "text or json"},
		{"log file too small", good + "log: {max_size: 1KB}\n", 3, "log.max_size", "at least"},
		{"too many log files", good + "log: {keep: 1001}\n", 3, "log.keep", "0 to 1000"},
		{"congestion control that is no name", good + "congestion: \"bbr; cubic\"\n", 3, "congestion", "auto, system"},
		{"websocket that is no bool", good + "agents: {websocket: maybe}\n", 3, "agents.websocket", ""},
		{"a quota below nothing", good + "quota: {agents: -1}\n", 3, "quota.agents", "digits only"},
		{"a workspace's quota below nothing", good + "workspaces:\n  a: {quota: {tokens: -1}}\n", 4, "workspaces.a.quota.tokens", "digits only"},
		{"a workspace's budget out of range", good + "workspaces:\n  a:\n    budget: {egress: 1KB}\n", 5, "workspaces.a.budget.egress", "16"},
		{"a workspace without limits", good + "workspaces: {a: {}}\n", 3, "workspaces.a", "leave the workspace out"},
		{"tab", good + "log:\n\tlevel: info\n", 4, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := configCopy(t, []byte(c.text))
			_, err := LoadConfig(file)
			var faults config.Faults
			if !errors.As(err, &faults) || len(faults) != 1 {
				t.Fatalf("got %v, want one fault", err)
			}
			f := faults[0]
			if f.File != file || c.line != 0 && f.Line != c.line || f.Path != c.path {
				t.Errorf("fault stands at %s:%d %q, want line %d %q", f.File, f.Line, f.Path, c.line, c.path)
			}
			if f.Message == "" || !strings.Contains(f.Message+" "+f.Hint, c.says) {
				t.Errorf("fault says %q, hint %q; want %q in it", f.Message, f.Hint, c.says)
			}
		})
	}
}

// The greatest private networks are nobody else's, so they may be named whole.
func TestPrivateNetworksMayHoldTheBalancers(t *testing.T) {
	const list = "[10.0.0.0/8, 172.16.0.0/12, \"fc00::/7\", 10.0.0.10, \"2001:db8::1\"]\n"
	c, err := LoadConfig(configCopy(t, []byte("version: 1\npublic_address: relay.example.com:443\ntrusted_proxies: "+list+"proxy_protocol: "+list)))
	if err != nil {
		t.Fatal(err)
	}
	if got := prefixes(c.ProxyProtocol); len(got) != 5 || got[2].String() != "fc00::/7" || got[3].String() != "10.0.0.10/32" {
		t.Errorf("balancers are %v", got)
	}
	if got := DefaultConfig(); len(got.ProxyProtocol) > 0 || len(got.TrustedProxies) > 0 {
		t.Error("somebody is trusted by default")
	}
}

func TestAllFaultsOfRelayYAMLAtOnce(t *testing.T) {
	_, err := LoadConfig(configCopy(t, []byte("version: 1\nlisten: relay\npublic_address: relay\nlog: {level: loud, format: xml}\n")))
	var faults config.Faults
	if !errors.As(err, &faults) || len(faults) != 4 {
		t.Fatalf("got %v, want four faults", err)
	}
}

func TestRelayYAMLThatOthersCanChangeIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there; internal/config tests the access lists")
	}
	file := configCopy(t, sample(t, "relay.yaml"))
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadConfig(file); err == nil {
		t.Error("a file that everybody may write was read")
	}
}

func TestRelayPathsAreTakenFromTheFile(t *testing.T) {
	file := configCopy(t, []byte("version: 1\ndata: state\npublic_address: relay.example.com:443\nkek: {env: FAIRLEAD_KEK}\nagents: {certificate_lifetime: 24h}\n"))
	c, err := LoadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := filepath.Join(filepath.Dir(file), "state"); c.Data != want {
		t.Errorf("data folder is %q, want %q", c.Data, want)
	}
	if c.KEK.File != "" || c.KEK.Env != "FAIRLEAD_KEK" {
		t.Errorf("with env alone the key is looked for in file %q, variable %q", c.KEK.File, c.KEK.Env)
	}
	if time.Duration(c.Agents.CertificateLifetime) != 24*time.Hour {
		t.Errorf("certificate lifetime is %v", time.Duration(c.Agents.CertificateLifetime))
	}
}
