package relay

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
	"github.com/fairleadhq/fairlead/relay/gateway"
	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// Config is relay.yaml. Begin with DefaultConfig or Load; configs/relay.full.yaml explains every key.
type Config struct {
	Version int `yaml:"version"`
	// Data is the folder of the relay's state: database, audit logs, key file. A relative path is taken from the folder
	// of relay.yaml.
	Data string `yaml:"data"`
	// Listen is the one port that agents and people share.
	Listen string `yaml:"listen"`
	// Congestion is the TCP congestion control of every connection at that port and at gateways': "auto", "system" or a name.
	Congestion string `yaml:"congestion"`
	// PublicAddress is where agents and people reach that port; it goes into join tokens and the certificate.
	PublicAddress string `yaml:"public_address"`
	// AlsoKnownAs are further host names and addresses that the relay's certificate shall hold.
	AlsoKnownAs []string `yaml:"also_known_as"`
	KEK         KEK      `yaml:"kek"`
	Health      Health   `yaml:"health"`
	Agents      Agents   `yaml:"agents"`
	Gateway     Gateway  `yaml:"gateway"`
	Budget      Budget   `yaml:"budget"`
	Quota       Quota    `yaml:"quota"` // of each workspace
	// Workspaces have, by name, what single ones may use and have instead.
	Workspaces map[string]WorkspaceLimits `yaml:"workspaces"`
	API        API                        `yaml:"api"`
	Audit      Audit                      `yaml:"audit"`
	SignIn     SignIn                     `yaml:"sign_in"`
	Mail       Mail                       `yaml:"mail"`
	// TrustedProxies are prefixes of load balancers that may name the caller's address in X-Forwarded-For.
	TrustedProxies []string `yaml:"trusted_proxies"`
	// ProxyProtocol are prefixes of load balancers whose connections to the port must begin with a PROXY protocol header, version 2.
	ProxyProtocol []string `yaml:"proxy_protocol"`
	Log           Log      `yaml:"log"`
}

// KEK says where the key-encryption key is: one of the two.
type KEK struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// Health is the listener of health and metrics. It has no authentication: keep it on loopback or a management network.
type Health struct {
	Listen string `yaml:"listen"` // "" serves none
}

// Agents holds what concerns agents.
type Agents struct {
	CertificateLifetime config.Duration `yaml:"certificate_lifetime"`
	MaxTunnels          int             `yaml:"max_tunnels"`
	MaxLanes            int             `yaml:"max_lanes"` // dedicated connections beside one tunnel
	// WebSocket lets agents come in through HTTP where nothing else passes.
	WebSocket bool `yaml:"websocket"`
	// QUIC takes agents in at the UDP port of the same number as Listen's, too.
	QUIC bool `yaml:"quic"`
}

// Gateway holds what concerns gateways: TCP ports that lead to connections' targets.
type Gateway struct {
	// Addresses that gateways may use, ADDRESS:PORT or ADDRESS:FIRST-LAST. Empty: there are no gateways.
	Addresses          []string `yaml:"addresses"`
	MaxConns           int      `yaml:"max_conns"`             // of all gateways at a time
	MaxConnsPerGateway int      `yaml:"max_conns_per_gateway"` // of one
}

// Budget is what each workspace may use of the relay, whatever its own admins set; 0 in a field is no limit.
type Budget struct {
	Rate       int64       `yaml:"rate"`       // operations begun a second
	Burst      int64       `yaml:"burst"`      // operations begun at once; 0: as many as Rate
	Concurrent int64       `yaml:"concurrent"` // operations and open dials at a time
	Egress     config.Size `yaml:"egress"`     // bytes a second towards callers
}

// Quota bounds what a workspace may have; 0: no bound beside those that hold everywhere.
type Quota struct {
	Agents          int `yaml:"agents"`
	Connections     int `yaml:"connections"`
	Users           int `yaml:"users"`
	ServiceAccounts int `yaml:"service_accounts"`
	Tokens          int `yaml:"tokens"` // that are neither revoked nor expired
}

// WorkspaceLimits stand, where they are given, in place of the whole budget or quota of each workspace.
type WorkspaceLimits struct {
	Budget *Budget `yaml:"budget"`
	Quota  *Quota  `yaml:"quota"`
}

// quotas are those of single workspaces, budgets as well.
func (c *Config) quotas() map[string]directory.Quota {
	m := map[string]directory.Quota{}
	for name, w := range c.Workspaces {
		if w.Quota != nil {
			m[name] = w.Quota.of()
		}
	}
	return m
}

func (c *Config) budgets() map[string]budget.Limits {
	m := map[string]budget.Limits{}
	for name, w := range c.Workspaces {
		if w.Budget != nil {
			m[name] = w.Budget.limits()
		}
	}
	return m
}

func (q Quota) of() directory.Quota {
	return directory.Quota{Agents: q.Agents, Connections: q.Connections, Users: q.Users, Services: q.ServiceAccounts, Tokens: q.Tokens}
}

func (b Budget) limits() budget.Limits {
	return budget.Limits{Rate: b.Rate, Burst: b.Burst, Concurrent: b.Concurrent, Egress: int64(b.Egress)}
}

// Audit holds what concerns the audit logs.
type Audit struct {
	// MaxSize caps each workspace's log; at the cap the relay refuses operations. 0: no cap but the disk.
	MaxSize config.Size `yaml:"max_size"`
	// AgentRate is how many records a second one agent may send for long; each KiB of a record counts as one. Beyond, the
	// acknowledgement waits.
	AgentRate int `yaml:"agent_rate"`
	// DeniedRate is how many refusals of one token are recorded one by one in a second; the others are counted.
	DeniedRate int `yaml:"denied_rate"`
}

// SignIn holds what concerns people who sign in; what a workspace demands of them is set by its admins.
type SignIn struct {
	// PasswordRounds of PBKDF2-HMAC-SHA512. A password with fewer is hashed anew when its person signs in.
	PasswordRounds int `yaml:"password_rounds"`
	// LeakedPasswords is a file of SHA-1 hashes of passwords that nobody may choose, ascending, one a line; "" for none beside the
	// commonest, which the program knows. A relative path is taken from relay.yaml's folder.
	LeakedPasswords string `yaml:"leaked_passwords"`
	// Passkeys lets people sign in by passkeys; nil: nobody can.
	Passkeys *Passkeys `yaml:"passkeys"`
}

// Passkeys says who the relay is to browsers and authenticators.
type Passkeys struct {
	ID      string   `yaml:"id"`      // the host that passkeys belong to, for good
	Origins []string `yaml:"origins"` // of the relay's pages, exactly
}

// Log is the program's own log.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
	// File, when not empty, takes the log instead of stderr; a relative path is taken from relay.yaml's folder. At MaxSize
	// it begins anew, and Keep older files stay.
	File    string      `yaml:"file"`
	MaxSize config.Size `yaml:"max_size"`
	Keep    int         `yaml:"keep"`
}

// The log file's size and number of older ones.
const (
	DefaultLogSize = config.Size(20e6)
	DefaultLogKeep = 5
	minLogSize     = config.Size(64 << 10)
	maxLogKeep     = 1000
)

const maxGatewayConns = 100_000

// Records of one agent a second. At the least of them a whole batch is taken before the agent gives up waiting.
const (
	DefaultAgentRate = 5000
	minAgentRate     = 200
	maxAgentRate     = 1_000_000
	maxDeniedRate    = 10_000
)

// ConfigVersion is the version of relay.yaml that this build reads.
const ConfigVersion = 1

// DefaultConfig is what holds where relay.yaml says nothing.
func DefaultConfig() Config {
	return Config{
		Listen: ":8443", Congestion: tunnel.CongestionAuto,
		KEK:     KEK{File: "kek.key"},
		Health:  Health{Listen: "127.0.0.1:9443"},
		Agents:  Agents{CertificateLifetime: config.Duration(7 * 24 * time.Hour), MaxTunnels: 8, MaxLanes: 8, WebSocket: true},
		Gateway: Gateway{MaxConns: gateway.DefaultConfig().MaxConns, MaxConnsPerGateway: gateway.DefaultConfig().MaxConnsPerGateway},
		Audit:   Audit{AgentRate: DefaultAgentRate, DeniedRate: dispatch.DefaultDeniedRate},
		API:     API{MinTLS: "1.2", MinHTTP: "1.0", DomainMinHTTP: "1.1", Pages: true},
		SignIn:  SignIn{PasswordRounds: vault.Rounds},
		Mail:    defaultMail(),
		Log:     Log{Level: "info", Format: "text", MaxSize: DefaultLogSize, Keep: DefaultLogKeep},
	}
}

// LoadConfig reads relay.yaml strictly. The error is config.Faults, with every fault found.
func LoadConfig(file string) (Config, error) {
	c := DefaultConfig()
	b, err := config.ReadFile(file)
	if err != nil {
		return c, err
	}
	doc, err := config.Parse(file, b)
	if err != nil {
		return c, err
	}
	if err := doc.Decode(&c); err != nil {
		return c, err
	}
	dir, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return c, fmt.Errorf("find the folder of %s: %w", file, err)
	}
	if c.Data == "" {
		c.Data = dir
	} else if !filepath.IsAbs(c.Data) {
		c.Data = filepath.Join(dir, c.Data)
	}
	if c.KEK.Env != "" && !doc.Has("kek.file") {
		c.KEK.File = ""
	}
	if c.KEK.File != "" && !filepath.IsAbs(c.KEK.File) {
		c.KEK.File = filepath.Join(c.Data, c.KEK.File)
	}
	if c.Log.File != "" && !filepath.IsAbs(c.Log.File) {
		c.Log.File = filepath.Join(dir, c.Log.File)
	}
	if c.SignIn.LeakedPasswords != "" && !filepath.IsAbs(c.SignIn.LeakedPasswords) {
		c.SignIn.LeakedPasswords = filepath.Join(dir, c.SignIn.LeakedPasswords)
	}
	c.Mail.below(dir)
	for _, f := range []*string{&c.API.ACME.CA, &c.API.ACME.KeyFile} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
	for i := range c.API.Certificates {
		for _, f := range []*string{&c.API.Certificates[i].Certificate, &c.API.Certificates[i].Key} {
			if *f != "" && !filepath.IsAbs(*f) {
				*f = filepath.Join(dir, *f)
			}
		}
	}
	var faults config.Faults
	c.validate(func(path, msg, hint string) { faults = append(faults, doc.Fault(path, msg, hint)) })
	return c, faults.Err()
}

func (c *Config) validate(fault func(path, msg, hint string)) {
	if c.Version != ConfigVersion {
		fault("version", fmt.Sprintf("is %d, this program reads %d", c.Version, ConfigVersion), "write version: 1")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		fault("listen", "is not an address and port", `such as ":8443" or "10.0.0.5:443"`)
	}
	if err := tunnel.ValidCongestion(c.Congestion); err != nil {
		fault("congestion", err.Error(), "auto, system, or a name such as bbr or cubic")
	}
	if host, port, err := net.SplitHostPort(c.PublicAddress); err != nil || host == "" || port == "" {
		fault("public_address", "is not a host and port that agents can reach", "such as relay.example.com:443")
	} else if _, err := allowlist.ParsePort(port); err != nil {
		fault("public_address", "has no valid port", "a number from 1 to 65535")
	}
	if (c.KEK.File == "") == (c.KEK.Env == "") {
		fault("kek", "wants either file or env", "")
	}
	if c.Health.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Health.Listen); err != nil {
			fault("health.listen", "is not an address and port", `such as "127.0.0.1:9443", or "" for none`)
		}
	}
	if d := time.Duration(c.Agents.CertificateLifetime); d < 10*time.Second || d > 90*24*time.Hour {
		fault("agents.certificate_lifetime", "is out of range", "from 10s to 2160h (90 days); 168h is the default")
	}
	if c.Agents.MaxTunnels < 1 || c.Agents.MaxTunnels > 64 {
		fault("agents.max_tunnels", "is out of range", "from 1 to 64")
	}
	if c.Agents.MaxLanes < 0 || c.Agents.MaxLanes > protocol.MaxLanes {
		fault("agents.max_lanes", "is out of range", fmt.Sprintf("from 0 (none) to %d", protocol.MaxLanes))
	}
	for i, s := range c.Gateway.Addresses {
		if _, err := gateway.ParseRange(s); err != nil {
			fault(config.Index("gateway.addresses", i), err.Error(), `such as "10.0.0.5:15000-15999", "0.0.0.0:15432" or "[2001:db8::5]:15432"`)
		}
	}
	if n := c.Gateway.MaxConns; n < 1 || n > maxGatewayConns {
		fault("gateway.max_conns", "is out of range", fmt.Sprintf("from 1 to %d", maxGatewayConns))
	}
	if n := c.Gateway.MaxConnsPerGateway; n < 1 || n > maxGatewayConns {
		fault("gateway.max_conns_per_gateway", "is out of range", fmt.Sprintf("from 1 to %d", maxGatewayConns))
	}
	if c.Audit.MaxSize != 0 && c.Audit.MaxSize < 16<<20 {
		fault("audit.max_size", "is too small to be of use", "at least 16MiB, or 0 for no cap")
	}
	if n := c.Audit.AgentRate; n < minAgentRate || n > maxAgentRate {
		fault("audit.agent_rate", "is out of range", fmt.Sprintf("from %d to %d; %d is the default", minAgentRate, maxAgentRate, DefaultAgentRate))
	}
	if n := c.Audit.DeniedRate; n < 1 || n > maxDeniedRate {
		fault("audit.denied_rate", "is out of range", fmt.Sprintf("from 1 to %d; %d is the default", maxDeniedRate, dispatch.DefaultDeniedRate))
	}
	if n := c.SignIn.PasswordRounds; n < vault.MinRounds || n > vault.MaxRounds {
		fault("sign_in.password_rounds", "is out of range", fmt.Sprintf("from %d to %d; %d is the default", vault.MinRounds, vault.MaxRounds, vault.Rounds))
	}
	c.Mail.validate(fault)
	if c.Mail.Server != "" && !c.API.Pages {
		fault("mail.server", "sends links to the account pages, which api.pages turns off", "leave api.pages out, or mail")
	}
	if k := c.SignIn.Passkeys; k != nil {
		if field, msg, want := passkey.Check(k.ID, k.Origins); field != "" {
			fault("sign_in.passkeys."+field, msg, want)
		}
	}
	limits := func(path string, b Budget) { // a quota is good as any number is; the decoder takes none below 0
		if field, want := b.limits().Check(); field != "" {
			fault(path+"budget."+field, "is out of range", want)
		}
	}
	limits("", c.Budget)
	for _, name := range slices.Sorted(maps.Keys(c.Workspaces)) {
		w, path := c.Workspaces[name], config.Join("workspaces", name)
		if w.Budget == nil && w.Quota == nil {
			fault(path, "changes nothing", "give a budget, a quota or both; or leave the workspace out")
		}
		limits(path+".", *cmp.Or(w.Budget, &Budget{}))
	}
	if c.API.MinTLS != "1.2" && c.API.MinTLS != "1.3" {
		fault("api.min_tls", "is not a version that callers may use", `"1.2" or "1.3", in quotes`)
	}
	if c.API.MinHTTP != "1.0" && c.API.MinHTTP != "1.1" {
		fault("api.min_http", "is not a version that callers may use", `"1.0" or "1.1", in quotes`)
	}
	if c.API.DomainMinHTTP != "1.0" && c.API.DomainMinHTTP != "1.1" {
		fault("api.domain_min_http", "is not a version that callers may use", `"1.0" or "1.1", in quotes`)
	}
	if len(c.API.Certificates) > maxSupplied {
		fault("api.certificates", "are too many", fmt.Sprintf("at most %d; one certificate may hold many names", maxSupplied))
	}
	for i, s := range c.API.Certificates {
		at := config.Index("api.certificates", i)
		switch {
		case s.Certificate == "" || s.Key == "":
			fault(at, "wants a certificate and its key", "certificate: FILE and key: FILE, both PEM")
		default:
			if _, err := s.load(); err != nil {
				fault(at, err.Error(), "both files must be there, belong to each other, and be readable for the relay's user")
			}
		}
	}
	if a := c.API.ACME; a.Directory != "" {
		if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
			fault("api.acme.directory", "is no https address", "the URL that your authority gives for its ACME directory")
		}
		if !a.Agree {
			fault("api.acme.agree", "must be true", "read the authority's terms of service, then say that you agree")
		}
		if _, err := a.roots(); err != nil {
			fault("api.acme.ca", err.Error(), "a PEM file of the authority that signed the ACME server's own certificate; leave it out for the system's")
		}
		if (a.KeyID == "") != (a.KeyFile == "") {
			fault("api.acme.key_id", "stands without key_file, or that without key_id", "give both as your authority gave them, or neither for one that wants no external account binding")
		}
		if _, err := a.key(); err != nil {
			fault("api.acme.key_file", err.Error(), "a file with the MAC key (HMAC key) alone, in base64url as your authority gave it, readable by the relay's user and nobody else")
		}
		if len(c.API.Domains) == 0 {
			fault("api.acme", "there is no domain to get certificates for", "name in api.domains what workspaces may take")
		}
	}
	public, _, _ := net.SplitHostPort(c.PublicAddress)
	for i, name := range c.API.Domains {
		at, host := config.Index("api.domains", i), strings.TrimPrefix(name, "*.")
		_, rest, _ := strings.Cut(strings.ToLower(public), ".")
		switch {
		case directory.CheckDomain(host) != nil:
			fault(at, "is no name of a host", "a whole name in small letters such as data.example.com, or *.apps.example.com for every name below one")
		case name == strings.ToLower(public) || name == "*."+rest:
			fault(at, "holds the host of public_address, which all workspaces share", "name what workspaces may take for themselves")
		}
	}
	for key, list := range map[string][]string{"trusted_proxies": c.TrustedProxies, "proxy_protocol": c.ProxyProtocol} {
		for i, p := range list {
			prefix, err := allowlist.ParsePrefix(p)
			switch {
			case err != nil:
				fault(config.Index(key, i), err.Error(), "such as 10.0.0.0/24")
			case prefix.Bits() < widest(prefix.Addr()):
				fault(config.Index(key, i), "trusts everybody, so anybody could claim any address", "name the load balancers' own addresses")
			}
		}
	}
	switch strings.ToLower(c.Log.Level) {
	case "debug", "info", "warn", "error":
	default:
		fault("log.level", "is not a level", "debug, info, warn or error")
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		fault("log.format", "is not a format", "text or json")
	}
	if c.Log.MaxSize < minLogSize {
		fault("log.max_size", fmt.Sprintf("%s is too small", c.Log.MaxSize), "at least "+minLogSize.String())
	}
	if c.Log.Keep < 0 || c.Log.Keep > maxLogKeep {
		fault("log.keep", fmt.Sprintf("%d is not in 0 to %d", c.Log.Keep, maxLogKeep), "")
	}
}

// gateways are the settings of the gateways.
func (c *Config) gateways() gateway.Config {
	g := gateway.DefaultConfig()
	g.MaxConns, g.MaxConnsPerGateway = c.Gateway.MaxConns, c.Gateway.MaxConnsPerGateway
	for _, s := range c.Gateway.Addresses {
		if r, err := gateway.ParseRange(s); err == nil { // validated
			g.Addresses = append(g.Addresses, r)
		}
	}
	return g
}

// widest is the shortest prefix that load balancers may have: those of the greatest private networks, 10.0.0.0/8 and fc00::/7.
// A shorter one holds much of the Internet, which two or three of them would hold whole.
func widest(a netip.Addr) int {
	if a.Is4() {
		return 8
	}
	return 7
}

// prefixes are those of a list that was validated.
func prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range list {
		if prefix, err := allowlist.ParsePrefix(p); err == nil { // validated
			out = append(out, prefix)
		}
	}
	return out
}

// certificateNames are the names and addresses of the relay's own certificate.
func (c *Config) certificateNames() (names []string, ips []netip.Addr) {
	add := func(h string) {
		if a, err := netip.ParseAddr(h); err == nil {
			ips = append(ips, a.Unmap())
		} else if h != "" {
			names = append(names, strings.ToLower(h))
		}
	}
	if host, _, err := net.SplitHostPort(c.PublicAddress); err == nil {
		add(host)
	}
	if host, _, err := net.SplitHostPort(c.Listen); err == nil && host != "" && host != "0.0.0.0" && host != "::" {
		add(host)
	}
	for _, h := range c.AlsoKnownAs {
		add(h)
	}
	// Whoever sits on the machine reaches the relay as localhost, too.
	add("localhost")
	add("127.0.0.1")
	add("::1")
	if h, err := os.Hostname(); err == nil {
		add(h)
	}
	return names, ips
}
