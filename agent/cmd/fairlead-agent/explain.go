package main

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/fairleadhq/fairlead/agent"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
)

// explainCommand asks the same policy code that the agent runs, without a relay and without touching a target.
type explainCommand struct {
	cli.Output
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"agent.yaml"`

	TCP     explainTCP     `cmd:"" name:"tcp" help:"Raw bytes to a host and port."`
	Query   explainQuery   `cmd:"" help:"A statement on a database profile."`
	Exec    explainExec    `cmd:"" help:"A statement that changes data on a database profile."`
	Read    explainRead    `cmd:"" help:"Reading a file."`
	Write   explainWrite   `cmd:"" help:"Writing a file."`
	Request explainRequest `cmd:"" help:"A request to an HTTP service."`
}

func (*explainCommand) Examples() []string {
	return []string{
		`fairlead-agent explain --config agent.yaml query sales "select * from orders"`,
		"fairlead-agent explain --config agent.yaml read hr payroll/2026.csv",
		"fairlead-agent explain --config agent.yaml tcp db1.corp:5432",
		"fairlead-agent explain --config agent.yaml request crm GET /api/v1/customers/7",
	}
}

// verdict is what explain prints.
type verdict struct {
	Allow     bool   `json:"allow"`
	Rule      string `json:"rule"`
	Line      int    `json:"line,omitempty"`
	Reason    string `json:"reason"`
	Hint      string `json:"hint,omitempty"`
	Statement string `json:"statement,omitempty"` // as the audit log would show it
	MaxRows   int64  `json:"max_rows,omitempty"`
	MaxBytes  int64  `json:"max_bytes,omitempty"`
	Timeout   string `json:"timeout,omitempty"`
	// Note says what only the running agent can tell.
	Note string `json:"note,omitempty"`
}

func (c *explainCommand) policy() (*policy.Policy, error) {
	cfg, err := agent.Load(c.Config)
	if err != nil {
		return nil, faults(err)
	}
	p, err := cfg.Policy()
	if err != nil {
		return nil, faults(err)
	}
	return p, nil
}

func (c *explainCommand) tell(t *cli.Term, d policy.Decision, note string) error {
	if !d.Allow {
		note = "" // what the running agent checks beside cannot make it allowed
	}
	v := verdict{Allow: d.Allow, Rule: d.Rule, Line: d.Line, Reason: d.Reason, Hint: d.Hint, Statement: d.Fingerprint, MaxRows: d.Limits.MaxRows, MaxBytes: d.Limits.MaxBytes, Note: note}
	if d.Limits.Timeout > 0 {
		v.Timeout = d.Limits.Timeout.String()
	}
	if c.JSON() {
		if err := t.JSON(v); err != nil {
			return err
		}
	} else {
		text := v.Reason // "allowed by …"
		if !v.Allow {
			text = "refused: " + text
		}
		t.Printf("%s\n", cli.Clean(text))
		if v.Rule != "" {
			t.Printf("  rule:  %s", cli.Clean(v.Rule))
			if v.Line > 0 {
				t.Printf(" (%s:%d)", c.Config, v.Line)
			}
			t.Printf("\n")
		}
		if v.Hint != "" {
			t.Printf("  hint:  %s\n", cli.Clean(v.Hint))
		}
		if v.Statement != "" {
			t.Printf("  event: %s\n", cli.Clean(v.Statement))
		}
		if v.Note != "" {
			t.Printf("  note:  %s\n", v.Note)
		}
	}
	if !d.Allow {
		return &cli.ExitError{Status: protocol.CodeDenied.ExitCode()}
	}
	return nil
}

func (c *explainCommand) decide(t *cli.Term, r *protocol.Request, statements []protocol.Statement, note string) error {
	p, err := c.policy()
	if err != nil {
		return err
	}
	d := p.Decide(policy.Operation{Request: r, Statements: statements})
	if !d.Allow {
		d.Hint = missingProfile(p, r, d.Hint)
	}
	return c.tell(t, d, note)
}

// missingProfile says that there is no such profile. The agent does not tell callers, the site's own admin may know.
func missingProfile(p *policy.Policy, r *protocol.Request, hint string) string {
	var names []string
	for _, o := range p.Offers() {
		if o.Kind == r.Kind {
			if o.Name == r.Profile {
				return hint
			}
			names = append(names, o.Name)
		}
	}
	if len(names) == 0 {
		return fmt.Sprintf("agent.yaml has no %s profile at all", r.Kind)
	}
	return fmt.Sprintf("agent.yaml has no %s profile %q; it has: %s", r.Kind, r.Profile, strings.Join(names, ", "))
}

type explainTCP struct {
	Target string `arg:"" placeholder:"HOST:PORT" help:"Host name or address, and port."`
}

func (*explainTCP) Examples() []string {
	return []string{"fairlead-agent explain --config agent.yaml tcp db1.corp:5432", "fairlead-agent explain --config agent.yaml tcp '[fd00::7]:443'"}
}

func (e *explainTCP) Run(t *cli.Term, g *grammar) error {
	c := &g.Explain
	host, ports, err := net.SplitHostPort(e.Target)
	if err != nil {
		return cli.Usage("%q is not HOST:PORT", e.Target)
	}
	port, err := allowlist.ParsePort(ports)
	if err != nil {
		return cli.Usage("%s", err)
	}
	p, err := c.policy()
	if err != nil {
		return err
	}
	d := p.Decide(policy.Operation{Request: &protocol.Request{Kind: protocol.KindTCP, Profile: protocol.NoProfile, Operation: protocol.OpDial, Host: host, Port: port}})
	note := "the running agent resolves the name and holds every address against allow and deny again"
	if addr, perr := netip.ParseAddr(host); perr == nil && d.Allow {
		d, note = p.DecideAddr(host, netip.AddrPortFrom(addr.Unmap(), port)), ""
	}
	return c.tell(t, d, note)
}

type explainQuery struct {
	Profile string `arg:"" help:"Profile in section database."`
	SQL     string `arg:"" name:"sql" help:"The statement, or with --named the name of a declared one."`
	Named   bool   `help:"SQL is the name of a statement that the profile declares."`
}

func (*explainQuery) Examples() []string {
	return []string{"fairlead-agent explain --config agent.yaml query sales 'select * from orders'", "fairlead-agent explain --config agent.yaml query sales open_orders --named"}
}

func (e *explainQuery) Run(t *cli.Term, g *grammar) error {
	return g.Explain.decide(t, &protocol.Request{Kind: protocol.KindDatabase, Profile: e.Profile, Operation: protocol.OpQuery}, []protocol.Statement{stmt(e.SQL, e.Named)},
		"the running agent also checks the database account, and runs it in a read-only transaction where the mode says so")
}

type explainExec struct {
	Profile string `arg:"" help:"Profile in section database."`
	SQL     string `arg:"" name:"sql" help:"The statement, or with --named the name of a declared one."`
	Named   bool   `help:"SQL is the name of a statement that the profile declares."`
}

func (*explainExec) Examples() []string {
	return []string{"fairlead-agent explain --config agent.yaml exec sales 'delete from orders where id = 7'"}
}

func (e *explainExec) Run(t *cli.Term, g *grammar) error {
	return g.Explain.decide(t, &protocol.Request{Kind: protocol.KindDatabase, Profile: e.Profile, Operation: protocol.OpExec}, []protocol.Statement{stmt(e.SQL, e.Named)}, "")
}

func stmt(text string, named bool) protocol.Statement {
	if named {
		return protocol.Statement{Name: text}
	}
	return protocol.Statement{SQL: text}
}

type explainRead struct {
	Profile string `arg:"" help:"Profile in section files."`
	Path    string `arg:"" help:"Path below the profile's base, with slashes."`
}

func (*explainRead) Examples() []string {
	return []string{"fairlead-agent explain --config agent.yaml read hr payroll/2026.csv"}
}

func (e *explainRead) Run(t *cli.Term, g *grammar) error {
	return g.Explain.decide(t, &protocol.Request{Kind: protocol.KindFiles, Profile: e.Profile, Operation: protocol.OpRead, Path: e.Path}, nil, "")
}

type explainWrite struct {
	Profile string `arg:"" help:"Profile in section files."`
	Path    string `arg:"" help:"Path below the profile's base, with slashes."`
}

func (*explainWrite) Examples() []string {
	return []string{"fairlead-agent explain --config agent.yaml write hr inbox/orders.csv"}
}

func (e *explainWrite) Run(t *cli.Term, g *grammar) error {
	return g.Explain.decide(t, &protocol.Request{Kind: protocol.KindFiles, Profile: e.Profile, Operation: protocol.OpWrite, Path: e.Path}, nil, "")
}

type explainRequest struct {
	Profile string `arg:"" help:"Profile in section http."`
	Method  string `arg:"" help:"GET, POST …"`
	Path    string `arg:"" help:"Path and query, beginning with a slash."`
}

func (*explainRequest) Examples() []string {
	return []string{"fairlead-agent explain --config agent.yaml request crm GET '/api/v1/customers?limit=5'"}
}

func (e *explainRequest) Run(t *cli.Term, g *grammar) error {
	return g.Explain.decide(t, &protocol.Request{Kind: protocol.KindHTTP, Profile: e.Profile, Operation: protocol.OpRequest, Method: strings.ToUpper(e.Method), Target: e.Path, Header: http.Header{}}, nil, "")
}
