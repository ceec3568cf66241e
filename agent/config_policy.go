package agent

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

// Policy compiles what the site allows. The error is config.Faults.
func (c *Config) Policy() (*policy.Policy, error) {
	rest, err := c.canonical()
	if err != nil {
		return nil, err
	}
	pc := policy.Config{
		Database: map[string]policy.Database{}, Files: map[string]policy.Files{}, HTTP: map[string]policy.HTTP{}, TCP: map[string]policy.TCP{},
		Allow: targets(c.Allow), Deny: targets(c.Deny), Mask: policy.Mask(c.Mask), Rest: rest,
		Line: func(path string) int { return c.doc.At(path).Line },
		Own:  ownAddresses(),
	}
	for name, d := range c.Database {
		pd := policy.Database{
			Adapter: d.Adapter, Host: d.Host, Port: d.Port, Mode: d.Allow.Mode, MaxRows: d.Allow.MaxRows, MaxBytes: int64(d.Allow.MaxBytes),
			Timeout: time.Duration(d.Allow.Timeout), Dial: d.Allow.Dial, Statements: map[string]policy.Statement{}, Mask: policy.Mask(d.Mask),
		}
		for id, s := range d.Statements {
			pd.Statements[id] = policy.Statement(s)
		}
		pc.Database[name] = pd
	}
	for name, f := range c.Files {
		pc.Files[name] = policy.Files{Allow: f.Allow, Match: f.Match, MaxSize: int64(f.MaxSize), Timeout: time.Duration(f.Timeout)}
	}
	for name, h := range c.HTTP {
		host, port := h.Endpoint()
		ph := policy.HTTP{Host: host, Port: port, MaxBytes: int64(h.MaxBytes), MaxSize: int64(h.MaxSize), Timeout: time.Duration(h.Timeout)}
		for _, r := range h.Allow {
			ph.Allow = append(ph.Allow, policy.HTTPRule(r))
		}
		pc.HTTP[name] = ph
	}
	for name, t := range c.TCP {
		pc.TCP[name] = policy.TCP{Host: t.Host, Port: t.Port}
	}
	p, faults := policy.New(pc)
	if len(faults) > 0 {
		var fs config.Faults
		for _, f := range faults {
			fs = append(fs, c.doc.Fault(f.Path, f.Message, f.Hint))
		}
		return nil, fs.Err()
	}
	return p, nil
}

// Endpoint is host and port of the base URL, the scheme's own port when it names none.
func (h HTTPProfile) Endpoint() (host string, port uint16) {
	u, err := url.Parse(h.BaseURL)
	if err != nil {
		return "", 0
	}
	switch {
	case u.Port() != "":
		port, _ = allowlist.ParsePort(u.Port()) // 0 is refused by who asks
	case u.Scheme == "https":
		port = 443
	default:
		port = 80
	}
	return u.Hostname(), port
}

func targets(rules []TargetRule) []policy.Target {
	var out []policy.Target
	for _, r := range rules {
		out = append(out, policy.Target(r))
	}
	return out
}

// canonical is the configuration as JSON: keys sorted, secrets as the names of their places.
func (c *Config) canonical() ([]byte, error) {
	b, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("put the configuration in canonical form: %w", err)
	}
	return b, nil
}

// ownAddresses tells whether an address is one of this host's interfaces. The list is renewed every ten seconds at most. When
// it cannot be read, every address counts as own, which allows less.
func ownAddresses() func(netip.Addr) bool {
	var mu sync.Mutex
	var read time.Time
	var own map[netip.Addr]bool
	return func(a netip.Addr) bool {
		mu.Lock()
		defer mu.Unlock()
		if own == nil || time.Since(read) > 10*time.Second {
			addrs, err := net.InterfaceAddrs()
			if err != nil {
				return true
			}
			read, own = time.Now(), make(map[netip.Addr]bool, len(addrs))
			for _, ia := range addrs {
				if n, ok := ia.(*net.IPNet); ok {
					if ip, ok := netip.AddrFromSlice(n.IP); ok {
						own[ip.Unmap()] = true
					}
				}
			}
		}
		return own[a.Unmap().WithZone("")]
	}
}

// overlaps warns of profiles that contradict each other.
func (v *validator) overlaps() {
	for name, t := range v.c.TCP {
		host, _, _ := allowlist.CanonicalHost(t.Host) // checked by the policy
		for db, d := range v.c.Database {
			dh, _, _ := allowlist.CanonicalHost(d.Host)
			if d.Adapter != "sqlite" && !d.Allow.Dial && dh == host && d.Port == t.Port {
				v.warn(config.Join("tcp", name), "leads to the database of profile "+db+", past its guard and masks", "remove it, or set "+policy.Path(protocol.KindDatabase, db)+".allow.dial: true to say that this is meant")
			}
		}
	}
}

// secrets reads what the file names.
func (v *validator) secrets() {
	base := filepath.Dir(v.c.Path)
	load := func(path string, r config.SecretRef) secret.Bytes {
		if r.IsZero() {
			return secret.Bytes{}
		}
		if r.File != "" {
			path += "_file"
		}
		s, err := r.Resolve(base)
		if err != nil {
			v.fault(path, err.Error(), "")
		}
		return s
	}
	v.c.Relay.Proxy.Secret = load("relay.proxy.password", v.c.Relay.Proxy.Password)
	v.caFile("relay.proxy", v.c.Relay.Proxy.CAFile)
	for name, d := range v.c.Database {
		path := config.Join("database", name)
		d.Secret = load(path+".password", d.Password)
		v.caFile(path, d.CAFile)
		v.c.Database[name] = d
	}
	for name, h := range v.c.HTTP {
		if h.CAFile != "" && !filepath.IsAbs(h.CAFile) {
			h.CAFile = filepath.Join(base, h.CAFile)
			v.c.HTTP[name] = h
		}
		v.caFile(config.Join("http", name), h.CAFile)
	}
}

func (v *validator) caFile(path, file string) {
	if file == "" {
		return
	}
	data, err := config.ReadFile(file)
	if err != nil {
		v.fault(config.Join(path, "ca_file"), err.Error(), "a PEM file with the CA's certificate")
		return
	}
	if v.c.cas == nil {
		v.c.cas = map[string][sha256.Size]byte{}
	}
	v.c.cas[file] = sha256.Sum256(data)
}

// SameSecrets reports whether two configurations read the same passwords and CA certificates, which their digests do not tell.
func (c *Config) SameSecrets(o *Config) bool {
	if len(c.Database) != len(o.Database) || !c.Relay.Proxy.Secret.Equal(o.Relay.Proxy.Secret) || !maps.Equal(c.cas, o.cas) {
		return false
	}
	for name, d := range c.Database {
		if !d.Secret.Equal(o.Database[name].Secret) {
			return false
		}
	}
	return true
}

// SecretFiles lists the files beside agent.yaml that the configuration reads: passwords and CA certificates. A Watcher can look
// at them too.
func (c *Config) SecretFiles() []string {
	base := filepath.Dir(c.Path)
	var out []string
	add := func(p string) {
		if p != "" {
			out = append(out, p)
		}
	}
	add(c.Relay.Proxy.Password.Path(base))
	add(c.Relay.Proxy.CAFile)
	for _, d := range c.Database {
		add(d.Password.Path(base))
		add(d.CAFile)
	}
	for _, h := range c.HTTP {
		add(h.CAFile)
	}
	return out
}

// ownFiles refuses a files profile that holds the configuration or one of its secrets, and warns of a base that is absent.
func (v *validator) ownFiles() {
	v.outside("the agent's configuration", append([]string{v.c.Path}, v.c.SecretFiles()...)...)
	if v.c.Log.File != "" {
		v.outside("the agent's log", v.c.Log.File)
	}
	for name, f := range v.c.Files {
		if info, err := os.Stat(f.Base); errors.Is(err, os.ErrNotExist) {
			v.warn(config.Join("files", name)+".base", "the folder does not exist; the profile is unavailable until it appears", "")
		} else if err == nil && !info.IsDir() {
			v.fault(config.Join("files", name)+".base", "is not a folder", "")
		}
	}
}

// CheckDataDir refuses files and sqlite profiles that would reach into the agent's own data folder (keys, spool), or hold it.
// The error is config.Faults.
func (c *Config) CheckDataDir(dataDir string) error {
	v := validator{c: c}
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return fmt.Errorf("find the data folder: %w", err)
	}
	v.outside("the agent's data folder", dataDir)
	for name, f := range c.Files {
		if within(f.Base, dataDir) && !within(dataDir, f.Base) {
			v.fault(config.Join("files", name)+".base", "lies in the agent's data folder "+dataDir, "offer another folder")
		}
	}
	for name, d := range c.Database {
		if d.Path != "" && within(d.Path, dataDir) {
			v.fault(config.Join("database", name)+".path", "lies in the agent's data folder "+dataDir, "offer another file")
		}
	}
	return v.faults.Err()
}

// outside refuses bases that hold one of the paths.
func (v *validator) outside(what string, paths ...string) {
	for name, f := range v.c.Files {
		for _, p := range paths {
			if within(p, f.Base) {
				v.fault(config.Join("files", name)+".base", fmt.Sprintf("%s (%s) lies in this folder", what, p), "offer a folder apart from it")
				break
			}
		}
	}
}

// within reports whether p is dir or lies in it, as written or with symbolic links resolved. Where links cannot be resolved, the
// text decides.
func within(p, dir string) bool {
	for _, a := range forms(p) {
		for _, b := range forms(dir) {
			if inside(a, b) {
				return true
			}
		}
	}
	return false
}

func forms(p string) []string {
	out := []string{filepath.Clean(p)}
	if real, err := filepath.EvalSymlinks(p); err == nil {
		out = append(out, real)
	}
	return out
}

func inside(p, dir string) bool {
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" { // file systems that fold case
		p, dir = strings.ToLower(p), strings.ToLower(dir)
	}
	rel, err := filepath.Rel(dir, p)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
