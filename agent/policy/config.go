package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy/statement"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/protocol"
)

// Modes of a database profile.
const (
	ModeReadOnly   = "read_only"  // query of reading statements, and schema
	ModeReadWrite  = "read_write" // moreover exec and transaction
	ModeStatements = "statements" // the declared statements by name, and nothing else
)

// Config is what a Policy is made of. Names of profiles, keys and indexes are those of agent.yaml, so that rules can be
// named by their place in it. It holds no secrets.
type Config struct {
	Database map[string]Database
	Files    map[string]Files
	HTTP     map[string]HTTP
	TCP      map[string]TCP
	Allow    []Target
	Deny     []Target
	Mask     Mask

	// Rest is the canonical form of settings that the policy does not know but Digest must tell of (addresses, TLS).
	Rest []byte
	// Line gives the line of a path such as "files.hr.allow" in the file, 0 when unknown. May be nil. Asked by New only.
	Line func(path string) int `json:"-"`
	// Own reports whether an address is one of this host's own interfaces. May be nil. Must be fast and safe for
	// concurrent use.
	Own func(netip.Addr) bool `json:"-"`
}

// Database is a profile of section database.
type Database struct {
	Adapter    string // a statement.Dialect
	Host       string // "" for sqlite
	Port       uint16
	Mode       string
	MaxRows    int64 // 0: no cap, as with each cap below
	MaxBytes   int64
	Timeout    time.Duration
	Dial       bool
	Statements map[string]Statement
	Mask       Mask
}

// Statement is one that callers run by name.
type Statement struct {
	SQL    string
	Params []string // types; as many as arguments are wanted
}

// Mask adds masks. In narrows where they hold: "answers", "events"; empty means both.
type Mask struct {
	Columns []string
	Detect  []string
	In      []string
}

// Files is a profile of section files.
type Files struct {
	Allow   []string // verbs: list stat read write delete move mkdir
	Match   []string // globs on the path relative to the base; empty admits every path
	MaxSize int64
	Timeout time.Duration
}

// HTTP is a profile of section http.
type HTTP struct {
	Host     string
	Port     uint16
	Allow    []HTTPRule
	MaxBytes int64 // of an answer's body
	MaxSize  int64 // of a request's body
	Timeout  time.Duration
}

// HTTPRule allows methods on a path pattern: "*" is one whole segment, "**" at the end is all that follows.
type HTTPRule struct {
	Methods []string
	Path    string
}

// TCP is a profile of section tcp.
type TCP struct {
	Host string
	Port uint16
}

// Target is an entry of allow or deny: Host or CIDR, not both. In deny, no ports means all.
type Target struct {
	Host  string
	CIDR  string
	Ports allowlist.Ports
}

// Fault is one thing wrong with a Config; Path is its place in agent.yaml.
type Fault struct{ Path, Message, Hint string }

func (f Fault) Error() string { return f.Path + ": " + f.Message }

// Policy is a compiled Config. Immutable; safe for concurrent use.
type Policy struct {
	database map[string]*database
	files    map[string]*files
	http     map[string]*web
	tcp      map[string]*target // the profile's own target
	allow    []*target
	deny     []*target
	guarded  []*database // profiles without raw dial, by the port that they are on
	masks    maskPair
	own      func(netip.Addr) bool
	digest   string
}

// rule is a place in agent.yaml that decides.
type rule struct {
	path string
	line int
}

type maskPair struct{ answers, events *mask.Set }

type compiler struct {
	c      *Config
	p      *Policy
	faults []Fault
}

// New compiles c. With faults there is no Policy. c must not be changed afterwards.
func New(c Config) (*Policy, []Fault) {
	k := &compiler{c: &c, p: &Policy{
		database: map[string]*database{}, files: map[string]*files{}, http: map[string]*web{}, tcp: map[string]*target{}, own: c.Own,
	}}
	if k.p.own == nil {
		k.p.own = func(netip.Addr) bool { return false }
	}
	for i, t := range c.Allow {
		if len(t.Ports) == 0 {
			k.fault(fmt.Sprintf("allow[%d]", i), "ports are missing", "name them: ports: [5432] or ports: [\"8000-8100\"]")
		}
		k.p.allow = append(k.p.allow, k.target(fmt.Sprintf("allow[%d]", i), t))
	}
	for i, t := range c.Deny {
		d := k.target(fmt.Sprintf("deny[%d]", i), t)
		d.allPorts = len(t.Ports) == 0
		k.p.deny = append(k.p.deny, d)
	}
	k.p.masks = k.mask("mask", c.Mask)
	for name, d := range c.Database {
		k.database(name, d)
	}
	for name, f := range c.Files {
		k.files(name, f)
	}
	for name, h := range c.HTTP {
		k.web(name, h)
	}
	for name, t := range c.TCP {
		path := k.profile(protocol.KindTCP, name)
		k.p.tcp[name] = k.endpoint(path, t.Host, t.Port)
	}
	if len(k.faults) > 0 {
		return nil, k.faults
	}
	canonical, err := json.Marshal(c)
	if err != nil {
		return nil, []Fault{{"", "the configuration cannot be put in canonical form", ""}}
	}
	sum := sha256.Sum256(canonical)
	k.p.digest = hex.EncodeToString(sum[:])[:16]
	return k.p, nil
}

// Digest names the configuration in force: 16 hex digits of the SHA-256 of its canonical form, without secrets. Comments
// and the order of keys do not change it.
func (p *Policy) Digest() string { return p.digest }

func (k *compiler) fault(path, msg, hint string) {
	k.faults = append(k.faults, Fault{path, msg, hint})
}

func (k *compiler) rule(path string) rule {
	r := rule{path: path}
	if k.c.Line != nil {
		r.line = k.c.Line(path)
	}
	return r
}

// profile checks a profile's name and returns its place.
func (k *compiler) profile(kind protocol.Kind, name string) string {
	path := Path(kind, name)
	if !protocol.ValidProfile(name) {
		k.fault(path, "a profile's name begins with a letter or digit and has up to 63 letters, digits, '_', '-' or '.'", "")
	}
	return path
}

// Path is a profile's place in agent.yaml: "files.hr", or `files["hr.old"]` where the name holds a dot.
func Path(kind protocol.Kind, name string) string { return join(string(kind), name) }

func join(path, key string) string {
	for i := 0; i < len(key); i++ {
		c := key[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return fmt.Sprintf("%s[%q]", path, key)
		}
	}
	return path + "." + key
}

func (k *compiler) mask(path string, m Mask) maskPair {
	if _, err := mask.Compile(mask.Rules{Columns: m.Columns, Detect: m.Detect}); err != nil {
		// Asked one by one, so that the fault names the entry.
		for i, c := range m.Columns {
			if _, err := mask.Compile(mask.Rules{Columns: []string{c}}); err != nil {
				k.fault(fmt.Sprintf("%s.columns[%d]", path, i), err.Error(), "")
			}
		}
		for i, d := range m.Detect {
			if _, err := mask.Compile(mask.Rules{Detect: []string{d}}); err != nil {
				k.fault(fmt.Sprintf("%s.detect[%d]", path, i), err.Error(), "")
			}
		}
		if len(m.Columns) > mask.MaxPatterns {
			k.fault(path+".columns", err.Error(), "")
		}
		return maskPair{}
	}
	set, _ := mask.Compile(mask.Rules{Columns: m.Columns, Detect: m.Detect})
	pair := maskPair{}
	if len(m.In) == 0 {
		return maskPair{set, set}
	}
	for i, in := range m.In {
		switch in {
		case "answers":
			pair.answers = set
		case "events":
			pair.events = set
		default:
			k.fault(fmt.Sprintf("%s.in[%d]", path, i), fmt.Sprintf("%q is not known here", in), "one of: answers, events")
		}
	}
	return pair
}

var dialects = []statement.Dialect{"postgresql", "mysql", "sqlite", "sqlserver", "oracle", "redshift"}
