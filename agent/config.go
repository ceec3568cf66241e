package agent

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// Config is agent.yaml: what the site offers, to whom it dials out, and how it records. docs/agent-yaml.md explains every
// key. Made by Load; not changed afterwards.
type Config struct {
	Version  int                        `yaml:"version"`
	Relay    RelayConfig                `yaml:"relay"`
	Database map[string]DatabaseProfile `yaml:"database"`
	Files    map[string]FilesProfile    `yaml:"files"`
	HTTP     map[string]HTTPProfile     `yaml:"http"`
	TCP      map[string]TCPProfile      `yaml:"tcp"`
	Allow    []TargetRule               `yaml:"allow"`
	Deny     []TargetRule               `yaml:"deny"`
	Limits   LimitsConfig               `yaml:"limits"` // of everything together
	Mask     MaskConfig                 `yaml:"mask"`
	Audit    AuditConfig                `yaml:"audit"`
	Log      LogConfig                  `yaml:"log"`

	// Path is the file that this was read from. Secret files named in it are relative to its folder.
	Path string `json:"-"`
	// Warnings are settings that work and deserve a second look.
	Warnings []config.Fault `json:"-"`

	doc *config.Document
	cas map[string][sha256.Size]byte // of the CA files that were read
}

// RelayConfig says how the agent reaches its relays.
type RelayConfig struct {
	Addresses []string    `yaml:"addresses"` // host:port; empty: those learnt at enrolment
	Transport string      `yaml:"transport" enum:"auto,tcp,websocket,quic"`
	Proxy     ProxyConfig `yaml:"proxy"`
	Lanes     int         `yaml:"lanes"` // dedicated connections that the relay may ask for beside each tunnel
	// Tunnels is how many are kept to each relay.
	Tunnels int `yaml:"tunnels"`
	// Congestion is the TCP congestion control of tunnels: "auto", "system" or a name.
	Congestion string `yaml:"congestion"`
}

// ProxyConfig is the HTTP proxy (CONNECT) on the way to the relay. The environment's is used only if From says so.
type ProxyConfig struct {
	URL      string           `yaml:"url"`                          // http://HOST:PORT or https://HOST:PORT; "" means none
	From     string           `yaml:"from" enum:"file,environment"` // "file": URL and what stands beside it
	Username string           `yaml:"username"`
	Password config.SecretRef `yaml:"password"`
	CAFile   string           `yaml:"ca_file"` // judges an https proxy

	Secret secret.Bytes `json:"-"` // what Password names
}

// DatabaseProfile is a database that the site offers.
type DatabaseProfile struct {
	Adapter      string                     `yaml:"adapter" enum:"postgresql,mysql,sqlite,sqlserver,oracle,redshift"`
	Host         string                     `yaml:"host"`
	Port         uint16                     `yaml:"port"`
	Path         string                     `yaml:"path"` // sqlite
	Database     string                     `yaml:"database"`
	Username     string                     `yaml:"username"`
	Password     config.SecretRef           `yaml:"password"`
	TLS          string                     `yaml:"tls" enum:"verify-full,verify-ca,disable"`
	CAFile       string                     `yaml:"ca_file"`
	MaxConns     int                        `yaml:"max_conns"`
	QueueTimeout config.Duration            `yaml:"queue_timeout"`
	ConnTimeout  config.Duration            `yaml:"conn_timeout"`
	Allow        DatabaseAllow              `yaml:"allow"`
	Statements   map[string]StatementConfig `yaml:"statements"`
	Mask         MaskConfig                 `yaml:"mask"`
	Limits       LimitsConfig               `yaml:"limits"`

	Secret secret.Bytes `json:"-"` // what Password names
}

// DatabaseAllow is what may be done with a database.
type DatabaseAllow struct {
	Mode     string          `yaml:"mode" enum:"read_only,read_write,statements"`
	MaxRows  int64           `yaml:"max_rows"`
	MaxBytes config.Size     `yaml:"max_bytes"`
	Timeout  config.Duration `yaml:"timeout"`
	Dial     bool            `yaml:"dial"`
}

// StatementConfig is a statement that callers run by name.
type StatementConfig struct {
	SQL    string   `yaml:"sql"`
	Params []string `yaml:"params"`
}

// MaskConfig names what is masked. In narrows where; empty means answers and events.
type MaskConfig struct {
	Columns []string `yaml:"columns"`
	Detect  []string `yaml:"detect" enum:"payment_card,email"`
	In      []string `yaml:"in" enum:"answers,events"`
}

// FilesProfile is a folder that the site offers.
type FilesProfile struct {
	Base    string          `yaml:"base"`
	Allow   []string        `yaml:"allow" enum:"list,stat,read,write,delete,move,mkdir"`
	Match   []string        `yaml:"match"`
	MaxSize config.Size     `yaml:"max_size"`
	Timeout config.Duration `yaml:"timeout"`
	// RejectHardlinks says when a file with more than one hard link is refused: "write" (write, delete, move), "always", "never".
	RejectHardlinks string          `yaml:"reject_hardlinks" enum:"write,always,never"`
	ReserveBytes    config.Size     `yaml:"reserve_bytes"`
	ReservePercent  int             `yaml:"reserve_percent"`
	UploadKeep      config.Duration `yaml:"upload_keep"`
	Limits          LimitsConfig    `yaml:"limits"`
}

// HTTPProfile is an HTTP service that the site offers.
type HTTPProfile struct {
	BaseURL   string          `yaml:"base_url"`
	Allow     []HTTPAllow     `yaml:"allow"`
	Redirects string          `yaml:"redirects" enum:"refuse,follow"`
	TLS       string          `yaml:"tls" enum:"verify-full,verify-ca"`
	CAFile    string          `yaml:"ca_file"`
	Timeout   config.Duration `yaml:"timeout"`
	MaxBytes  config.Size     `yaml:"max_bytes"`
	MaxSize   config.Size     `yaml:"max_size"`
	Limits    LimitsConfig    `yaml:"limits"`
}

// HTTPAllow allows methods on a path pattern.
type HTTPAllow struct {
	Methods []string `yaml:"methods" enum:"GET,HEAD,POST,PUT,PATCH,DELETE,OPTIONS"`
	Path    string   `yaml:"path"`
}

// TCPProfile is a host and port that the site offers for raw bytes.
type TCPProfile struct {
	Host   string       `yaml:"host"`
	Port   uint16       `yaml:"port"`
	Limits LimitsConfig `yaml:"limits"`
}

// TargetRule is an entry of allow or deny.
type TargetRule struct {
	Host  string          `yaml:"host"`
	CIDR  string          `yaml:"cidr"`
	Ports allowlist.Ports `yaml:"ports"`
}

// AuditConfig is the agent's own record.
type AuditConfig struct {
	Spool    config.Size `yaml:"spool"`
	WhenFull string      `yaml:"when_full" enum:"refuse"`
}

// LogConfig is the program's log, which is not the audit record.
type LogConfig struct {
	Level  string `yaml:"level" enum:"debug,info,warn,error"`
	Format string `yaml:"format" enum:"text,json"`
	// File, when not empty, takes the log instead of stderr; a relative path is taken from agent.yaml's folder. At MaxSize it begins anew,
	// and Keep older files stay. All of log is read at the start.
	File    string      `yaml:"file"`
	MaxSize config.Size `yaml:"max_size"`
	Keep    int         `yaml:"keep"`
}

// Defaults of agent.yaml.
const (
	DefaultSpool        = config.Size(1e9)
	MinSpool            = config.Size(16 << 20)
	DefaultRelayPort    = 8443
	DefaultLanes        = 8
	DefaultLogSize      = config.Size(20e6)
	DefaultLogKeep      = 5
	minLogSize          = config.Size(64 << 10)
	maxLogKeep          = 1000
	defaultMaxConns     = 5
	maxMaxConns         = 1000
	defaultHTTPTimeout  = "60s"
	defaultFileHardlink = "write"
)

// defaultPorts of database adapters; sqlite has none.
var defaultPorts = map[string]uint16{"postgresql": 5432, "redshift": 5439, "mysql": 3306, "sqlserver": 1433, "oracle": 1521}

// DefaultConfig is what an empty agent.yaml means: nothing is offered. Version is left for the file to say.
func DefaultConfig() *Config {
	return &Config{
		Relay: RelayConfig{Transport: uplink.TransportAuto, Lanes: DefaultLanes, Tunnels: 1, Congestion: tunnel.CongestionAuto, Proxy: ProxyConfig{From: "file"}},
		Audit: AuditConfig{Spool: DefaultSpool, WhenFull: "refuse"},
		Log:   LogConfig{Level: "info", Format: "text", MaxSize: DefaultLogSize, Keep: DefaultLogKeep},
	}
}

// SetDefaults is called by the decoder before a profile is read.
func (d *DatabaseProfile) SetDefaults() {
	d.TLS, d.MaxConns, d.Allow.Mode = "verify-full", defaultMaxConns, "read_only"
}

// SetDefaults is called by the decoder before a profile is read.
func (f *FilesProfile) SetDefaults() { f.RejectHardlinks = defaultFileHardlink }

// SetDefaults is called by the decoder before a profile is read.
func (h *HTTPProfile) SetDefaults() {
	h.Redirects, h.TLS = "refuse", "verify-full"
	_ = h.Timeout.UnmarshalText([]byte(defaultHTTPTimeout)) // a constant
}

// Load reads, checks and completes agent.yaml, and reads the secrets that it names. The error holds every fault
// (config.Faults) or says why the file cannot be read. Nothing comes from the environment but secrets that the file asks
// for by {env: NAME}.
func Load(path string) (*Config, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the configuration: %w", err)
	}
	data, err := config.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	return Decode(path, data)
}

// Decode is Load for content that was read already (by a config.Watcher). path must be absolute.
func Decode(path string, data []byte) (*Config, error) {
	c, err := parse(path, data)
	if err != nil {
		return nil, err
	}
	v := validator{c: c}
	v.secrets()
	v.ownFiles()
	if err := v.faults.Err(); err != nil {
		return nil, err
	}
	return c, nil
}

// parse is Decode without a look at the file system.
func parse(path string, data []byte) (*Config, error) {
	doc, err := config.Parse(path, data)
	if err != nil {
		return nil, err
	}
	c := DefaultConfig()
	c.Path, c.doc = path, doc
	if err := doc.Decode(c); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// Validate fills in what follows from other settings and returns every fault of the settings themselves as config.Faults.
// It looks at no file; Load does.
func (c *Config) Validate() error {
	c.Warnings = nil
	v := validator{c: c}
	if !c.doc.Has("version") {
		v.fault("version", "version is missing", "write: version: 1")
	} else if c.Version != 1 {
		v.fault("version", fmt.Sprintf("version %d is not known to this agent", c.Version), "write: version: 1")
	}
	v.relay()
	for name, d := range c.Database {
		v.database(config.Join("database", name), &d)
		c.Database[name] = d
	}
	for name, f := range c.Files {
		v.files(config.Join("files", name), &f)
	}
	for name, h := range c.HTTP {
		v.http(config.Join("http", name), &h)
	}
	if c.Audit.Spool < MinSpool {
		v.fault("audit.spool", fmt.Sprintf("%s is too small", c.Audit.Spool), "at least "+MinSpool.String())
	}
	v.log()
	v.limits()
	if len(v.faults) == 0 { // the policy would only repeat these in other words
		if _, err := c.Policy(); err != nil {
			return err
		}
		v.overlaps()
	}
	return v.faults.Err()
}

// validator collects faults of one Config.
type validator struct {
	c      *Config
	faults config.Faults
}

func (v *validator) fault(path, msg, hint string) {
	v.faults = append(v.faults, v.c.doc.Fault(path, msg, hint))
}

func (v *validator) warn(path, msg, hint string) {
	v.c.Warnings = append(v.c.Warnings, v.c.doc.Fault(path, msg, hint))
}

func (v *validator) log() {
	l := &v.c.Log
	if l.File != "" && !filepath.IsAbs(l.File) {
		l.File = filepath.Join(filepath.Dir(v.c.Path), l.File)
	}
	if l.MaxSize < minLogSize {
		v.fault("log.max_size", fmt.Sprintf("%s is too small", l.MaxSize), "at least "+minLogSize.String())
	}
	if l.Keep < 0 || l.Keep > maxLogKeep {
		v.fault("log.keep", fmt.Sprintf("%d is not in 0 to %d", l.Keep, maxLogKeep), "")
	}
}

func (v *validator) relay() {
	r := &v.c.Relay
	for i, a := range r.Addresses {
		host, port, err := net.SplitHostPort(a)
		if err == nil {
			_, _, err = allowlist.CanonicalHost(host)
		}
		if err == nil {
			_, err = allowlist.ParsePort(port)
		}
		if err != nil {
			v.fault(config.Index("relay.addresses", i), shownAddress(a)+" is not HOST:PORT", fmt.Sprintf("such as relay.example.com:%d", DefaultRelayPort))
		}
	}
	if v.c.doc.Has("relay.addresses") && len(r.Addresses) == 0 {
		v.fault("relay.addresses", "the list is empty", "remove the key to use the addresses learnt at enrolment")
	}
	if r.Transport == uplink.TransportQUIC && (r.Proxy.URL != "" || r.Proxy.From == proxyFromEnvironment) {
		v.fault("relay.transport", "quic does not go through a proxy, which carries TCP alone", "use auto, tcp or websocket, or remove relay.proxy")
	}
	if r.Lanes < 0 || r.Lanes > protocol.MaxLanes {
		v.fault("relay.lanes", fmt.Sprintf("%d is not in 0 to %d", r.Lanes, protocol.MaxLanes), "0 opens none; 8 is the default")
	}
	if r.Tunnels < 1 || r.Tunnels > uplink.MaxTunnels {
		v.fault("relay.tunnels", fmt.Sprintf("%d is not in 1 to %d", r.Tunnels, uplink.MaxTunnels), "1 is the default")
	}
	p := r.Proxy
	if err := tunnel.ValidCongestion(r.Congestion); err != nil {
		v.fault("relay.congestion", err.Error(), "auto, system, or a name such as bbr or cubic")
	}
	if v.c.doc.Has("relay.proxy") && p.URL == "" && p.From != proxyFromEnvironment {
		v.fault("relay.proxy", "url is missing", `such as url: "http://proxy.corp:3128", or from: environment`)
	}
	if p.From == proxyFromEnvironment && (p.URL != "" || p.Username != "" || !p.Password.IsZero()) {
		v.fault("relay.proxy.from", "the environment names the proxy, so url, username and password have no place beside it", "remove one or the other")
	}
	if p.URL != "" {
		if u, ok := plainURL(p.URL); !ok || u.Path != "" && u.Path != "/" || u.Port() == "" {
			v.fault("relay.proxy.url", "wants http://HOST:PORT or https://HOST:PORT", "user name and password have keys of their own")
		}
	}
	if (p.Username == "") != p.Password.IsZero() {
		v.fault("relay.proxy", "username and password_file go together", "")
	}
	if strings.Contains(p.Username, ":") {
		v.fault("relay.proxy.username", "a colon cannot stand in it", "Basic authentication takes it for the end of the name")
	}
	plain := strings.HasPrefix(p.URL, "http:")
	if p.CAFile != "" && plain {
		v.fault("relay.proxy.ca_file", "goes with an https proxy only", "remove it, or write https:// in url")
	}
	if p.Username != "" && plain {
		v.warn("relay.proxy", "user name and password go to the proxy in the clear", "use https:// in url if the proxy speaks TLS")
	}
	if p.CAFile != "" && !filepath.IsAbs(p.CAFile) {
		r.Proxy.CAFile = filepath.Join(filepath.Dir(v.c.Path), p.CAFile)
	}
}

// proxyFromEnvironment is the value of relay.proxy.from that takes the proxy from HTTPS_PROXY.
const proxyFromEnvironment = "environment"

// plainURL parses an http or https URL without user, query and fragment, with a canonical host.
func plainURL(s string) (*url.URL, bool) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.ForceQuery ||
		u.Fragment != "" || u.Opaque != "" || strings.Contains(s, "#") || u.RawPath != "" {
		return nil, false
	}
	if _, _, err := allowlist.CanonicalHost(u.Hostname()); err != nil {
		return nil, false
	}
	if p := u.Port(); p != "" || strings.HasSuffix(u.Host, ":") {
		if _, err := allowlist.ParsePort(p); err != nil {
			return nil, false
		}
	}
	return u, true
}

// shownAddress is an address as a fault may show it. One with an @ may hold a password.
func shownAddress(a string) string {
	if strings.Contains(a, "@") {
		return "an address with @"
	}
	return fmt.Sprintf("%q", a)
}
