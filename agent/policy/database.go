package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/agent/policy/statement"
	"github.com/fairleadhq/fairlead/protocol"
)

// Limits on what one operation may hold.
const (
	maxStatements  = 1000
	maxFingerprint = 4 << 10
)

type database struct {
	name       string
	dialect    statement.Dialect
	mode       string
	rule       rule // database.X.allow
	modeRule   rule
	dialRule   rule
	dial       bool
	limits     Limits
	masks      maskPair
	statements map[string]*declared
	target     *target // nil for sqlite
	denied     *target // the deny entry that covers the profile's own host, if any
}

type declared struct {
	rule   rule
	sql    string
	params int
	class  statement.Class
	print  string
}

func (k *compiler) database(name string, c Database) {
	path := k.profile(protocol.KindDatabase, name)
	d := &database{
		name: name, dialect: statement.Dialect(c.Adapter), mode: c.Mode, dial: c.Dial,
		rule: k.rule(path + ".allow"), modeRule: k.rule(path + ".allow.mode"), dialRule: k.rule(path + ".allow.dial"),
		limits: Limits{MaxRows: c.MaxRows, MaxBytes: c.MaxBytes, Timeout: c.Timeout},
		masks:  k.mask(path+".mask", c.Mask), statements: map[string]*declared{},
	}
	if !slices.Contains(dialects, d.dialect) {
		k.fault(path+".adapter", fmt.Sprintf("adapter %q is not known", c.Adapter), "one of: postgresql, mysql, sqlite, sqlserver, oracle, redshift")
		return
	}
	if c.MaxRows < 0 || c.MaxBytes < 0 || c.Timeout < 0 {
		k.fault(path+".allow", "a limit is negative", "")
	}
	if c.Mode != ModeReadOnly && c.Mode != ModeReadWrite && c.Mode != ModeStatements {
		k.fault(path+".allow.mode", fmt.Sprintf("mode %q is not known", c.Mode), "one of: read_only, read_write, statements")
	}
	if c.Mode == ModeStatements && len(c.Statements) == 0 {
		k.fault(path+".allow.mode", "mode statements without statements allows nothing", "declare some under "+path+".statements")
	}
	for id, s := range c.Statements {
		at := join(path+".statements", id)
		if !protocol.ValidProfile(id) {
			k.fault(at, "a statement's name begins with a letter or digit and has up to 63 letters, digits, '_', '-' or '.'", "")
		}
		a := statement.Analyze(d.dialect, s.SQL)
		switch {
		case strings.TrimSpace(s.SQL) == "":
			k.fault(at+".sql", "statement is empty", "")
		case a.Class != statement.ClassRead && a.Class != statement.ClassWrite:
			k.fault(at+".sql", "statement is refused: "+a.Reason, "")
		case c.Mode == ModeReadOnly && a.Class != statement.ClassRead:
			k.fault(at+".sql", "a statement that changes data can never run in mode read_only", "set "+path+".allow.mode to statements or read_write")
		}
		d.statements[id] = &declared{k.rule(at), s.SQL, len(s.Params), a.Class, a.Fingerprint}
	}
	if d.dialect == "sqlite" {
		if c.Host != "" || c.Port != 0 || c.Dial {
			k.fault(path, "a sqlite profile has no host, port or dial", "remove them")
		}
	} else {
		d.target = k.endpoint(path, c.Host, c.Port)
		d.denied = k.denies(d.target)
		if !c.Dial {
			k.p.guarded = append(k.p.guarded, d)
		}
	}
	k.p.database[name] = d
}

func (p *Policy) decideDatabase(op Operation) Decision {
	r := op.Request
	d := p.database[r.Profile]
	if d == nil {
		return notAllowed(r.Kind, r.Profile, string(r.Operation), 0)
	}
	if d.denied != nil {
		return deny(d.denied.rule, protocol.CodeDenied, deniedTarget, deniedHint)
	}
	ok := allow(d.modeRule)
	ok.Limits, ok.Mask, ok.EventMask = d.limits, d.masks.answers, d.masks.events
	refuse := func(ru rule, code protocol.Code, reason, hint string) Decision {
		no := deny(ru, code, reason, hint)
		no.EventMask, no.Fingerprint = d.masks.events, ok.Fingerprint
		return no
	}
	writes := r.Operation != protocol.OpQuery && r.Operation != protocol.OpSchema
	if writes && d.mode == ModeReadOnly || r.Operation == protocol.OpSchema && d.mode == ModeStatements {
		no := notAllowed(r.Kind, r.Profile, string(r.Operation), d.modeRule.line)
		no.EventMask = d.masks.events
		for _, s := range op.Statements {
			no.Fingerprint = appendPrint(no.Fingerprint, d.print(s))
		}
		return no
	}
	if r.Operation == protocol.OpSchema {
		return ok
	}
	if n := len(op.Statements); n == 0 || n > maxStatements || n > 1 && r.Operation != protocol.OpTransaction {
		return refuse(d.rule, protocol.CodeInvalid, fmt.Sprintf("%s got %d statements", r.Operation, n),
			fmt.Sprintf("send exactly one, or up to %d as a transaction", maxStatements))
	}
	for _, s := range op.Statements {
		var class statement.Class
		from, reason := d.modeRule, ""
		switch {
		case (s.SQL == "") == (s.Name == ""):
			return refuse(d.rule, protocol.CodeInvalid, "a statement wants either sql or the name of a declared statement", "")
		case s.Name != "":
			dec := d.statements[s.Name]
			if dec == nil {
				return refuse(rule{path: Path(r.Kind, r.Profile) + ".statements", line: d.rule.line}, protocol.CodeDenied, "the site declares no statement of this name on database profile "+d.name, askAdmin+" under "+Path(r.Kind, d.name)+".statements")
			}
			ok.Fingerprint = appendPrint(ok.Fingerprint, dec.print)
			if len(s.Args) != dec.params {
				return refuse(dec.rule, protocol.CodeInvalid, fmt.Sprintf("statement %s wants %d arguments and got %d", s.Name, dec.params, len(s.Args)), "")
			}
			class, from = dec.class, dec.rule
			ok.SQL = append(ok.SQL, dec.sql)
			if len(op.Statements) == 1 {
				ok.Rule, ok.Line, ok.Reason = from.path, from.line, "allowed by "+from.path
			}
		default:
			a := statement.Analyze(d.dialect, s.SQL)
			ok.Fingerprint = appendPrint(ok.Fingerprint, a.Fingerprint)
			if d.mode == ModeStatements {
				return refuse(d.modeRule, protocol.CodeDenied, "the site allows only declared statements on database profile "+d.name, `send {"statement": NAME} with one that the site declares, or `+askAdmin)
			}
			class, reason = a.Class, a.Reason
			ok.SQL = append(ok.SQL, s.SQL)
		}
		switch {
		case class == statement.ClassRead:
		case class != statement.ClassWrite:
			return refuse(from, protocol.CodeDenied, "the statement is refused: "+reason, "send one plain select, insert, update or delete")
		case r.Operation == protocol.OpQuery && d.mode == ModeReadOnly:
			return refuse(from, protocol.CodeDenied, "the site allows reading only on database profile "+d.name, askAdmin+" under "+d.modeRule.path)
		case r.Operation == protocol.OpQuery:
			return refuse(from, protocol.CodeDenied, "query takes reading statements only", "send this one as exec")
		}
	}
	return ok
}

// print is the fingerprint of a statement, "" for an unknown name.
func (d *database) print(s protocol.Statement) string {
	if s.Name == "" {
		return statement.Analyze(d.dialect, s.SQL).Fingerprint
	}
	if dec := d.statements[s.Name]; dec != nil {
		return dec.print
	}
	return ""
}

func appendPrint(all, one string) string {
	if all != "" && one != "" {
		all += "; "
	}
	if all += one; len(all) > maxFingerprint {
		all = strings.ToValidUTF8(all[:maxFingerprint], "")
	}
	return all
}

// sameTarget reports whether host and address lead to the database's own host and port. near are addresses that the
// database's host resolves to.
func (d *database) sameTarget(p *Policy, host string, a netip.AddrPort, near []netip.Addr) bool {
	if d.target.port != a.Port() {
		return false
	}
	if host != "" && host == d.target.host || a.Addr().IsValid() && (d.target.addr == a.Addr() || slices.Contains(near, a.Addr())) {
		return true
	}
	// Every local address leads to one host: a database on "localhost" is reached by the interface's address too.
	local := func(x netip.Addr) bool { return x.IsValid() && (x.IsLoopback() || x.IsUnspecified() || p.own(x)) }
	return (d.target.host == localhost || local(d.target.addr) || slices.ContainsFunc(near, local)) &&
		(host == localhost || local(a.Addr()))
}
