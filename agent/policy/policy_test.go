package policy_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/protocol"
)

func compile(t testing.TB, c policy.Config) *policy.Policy {
	t.Helper()
	p, faults := policy.New(c)
	if faults != nil {
		t.Fatal(faults)
	}
	return p
}

func request(profile, method, target string) policy.Operation {
	return policy.Operation{Request: &protocol.Request{Kind: protocol.KindHTTP, Profile: profile, Operation: protocol.OpRequest, Method: method, Target: target}}
}

func file(profile string, op protocol.Operation, path string) policy.Operation {
	return policy.Operation{Request: &protocol.Request{Kind: protocol.KindFiles, Profile: profile, Operation: op, Path: path}}
}

func sql(profile string, op protocol.Operation, text ...string) policy.Operation {
	o := policy.Operation{Request: &protocol.Request{Kind: protocol.KindDatabase, Profile: profile, Operation: op}}
	for _, s := range text {
		o.Statements = append(o.Statements, protocol.Statement{SQL: s})
	}
	return o
}

func dial(host string, port uint16) policy.Operation {
	return policy.Operation{Request: &protocol.Request{Kind: protocol.KindTCP, Profile: protocol.NoProfile, Operation: protocol.OpDial, Host: host, Port: port}}
}

func ports(ps ...uint16) (out allowlist.Ports) {
	for _, p := range ps {
		out = append(out, allowlist.PortRange{First: p, Last: p})
	}
	return out
}

func want(t *testing.T, d policy.Decision, allow bool, rule string) {
	t.Helper()
	if d.Allow != allow || d.Rule != rule {
		t.Errorf("got allow %v by %q (%s), want %v by %q", d.Allow, d.Rule, d.Reason, allow, rule)
	}
	if !d.Allow && (d.Code == "" || d.Reason == "") {
		t.Errorf("a denial without code or reason: %+v", d)
	}
	if d.Allow && d.Code != "" {
		t.Errorf("allowed with code %s", d.Code)
	}
}

func pg(mode string) policy.Database {
	return policy.Database{Adapter: "postgresql", Host: "db1.corp", Port: 5432, Mode: mode}
}

func TestDatabaseModes(t *testing.T) {
	declared := map[string]policy.Statement{"open_orders": {SQL: "select id from orders where status = $1", Params: []string{"text"}}}
	st := pg(policy.ModeStatements)
	st.Statements = map[string]policy.Statement{"open_orders": declared["open_orders"], "close": {SQL: "update orders set status = 'x' where id = $1", Params: []string{"integer"}}}
	ro := pg(policy.ModeReadOnly)
	ro.Statements = declared
	p := compile(t, policy.Config{
		Database: map[string]policy.Database{"ro": ro, "rw": pg(policy.ModeReadWrite), "st": st, "lite": {Adapter: "sqlite", Mode: policy.ModeReadOnly}},
		Line:     func(path string) int { return len(path) },
	})
	const q, w, x = "select id from t where name = 'secret-literal'", "update t set a = 1", "grant select on t to public"
	named := func(profile string, op protocol.Operation, name string, args ...string) policy.Operation {
		o := policy.Operation{Request: &protocol.Request{Kind: protocol.KindDatabase, Profile: profile, Operation: op}}
		s := protocol.Statement{Name: name}
		for _, a := range args {
			s.Args = append(s.Args, json.RawMessage(a))
		}
		o.Statements = []protocol.Statement{s}
		return o
	}
	for name, c := range map[string]struct {
		op    policy.Operation
		allow bool
		rule  string
		code  protocol.Code
	}{
		"read_only query":                    {sql("ro", "query", q), true, "database.ro.allow.mode", ""},
		"read_only query that writes":        {sql("ro", "query", w), false, "database.ro.allow.mode", "denied"},
		"read_only query refused":            {sql("ro", "query", x), false, "database.ro.allow.mode", "denied"},
		"read_only exec":                     {sql("ro", "exec", w), false, "database.ro.allow", "denied"},
		"read_only exec of a read":           {sql("ro", "exec", q), false, "database.ro.allow", "denied"},
		"read_only transaction":              {sql("ro", "transaction", q), false, "database.ro.allow", "denied"},
		"read_only schema":                   {sql("ro", "schema"), true, "database.ro.allow.mode", ""},
		"read_only declared":                 {named("ro", "query", "open_orders", `"x"`), true, "database.ro.statements.open_orders", ""},
		"read_only sqlite":                   {sql("lite", "query", q), true, "database.lite.allow.mode", ""},
		"two statements at once":             {sql("ro", "query", q, q), false, "database.ro.allow", "invalid"},
		"two statements in one":              {sql("ro", "query", q+"; "+w), false, "database.ro.allow.mode", "denied"},
		"no statement":                       {sql("ro", "query"), false, "database.ro.allow", "invalid"},
		"empty statement":                    {sql("ro", "query", ""), false, "database.ro.allow", "invalid"},
		"read_write query":                   {sql("rw", "query", q), true, "database.rw.allow.mode", ""},
		"read_write query that writes":       {sql("rw", "query", w), false, "database.rw.allow.mode", "denied"},
		"read_write exec":                    {sql("rw", "exec", w), true, "database.rw.allow.mode", ""},
		"read_write exec refused":            {sql("rw", "exec", x), false, "database.rw.allow.mode", "denied"},
		"read_write transaction":             {sql("rw", "transaction", w, q, w), true, "database.rw.allow.mode", ""},
		"read_write transaction, one refuse": {sql("rw", "transaction", w, x), false, "database.rw.allow.mode", "denied"},
		"read_write transaction of none":     {sql("rw", "transaction"), false, "database.rw.allow", "invalid"},
		"statements query by name":           {named("st", "query", "open_orders", `"x"`), true, "database.st.statements.open_orders", ""},
		"statements exec by name":            {named("st", "exec", "close", "1"), true, "database.st.statements.close", ""},
		"statements query of a write":        {named("st", "query", "close", "1"), false, "database.st.statements.close", "denied"},
		"statements unknown name":            {named("st", "query", "none"), false, "database.st.statements", "denied"},
		"statements wrong count":             {named("st", "query", "open_orders"), false, "database.st.statements.open_orders", "invalid"},
		"statements free SQL":                {sql("st", "query", q), false, "database.st.allow.mode", "denied"},
		"statements declared SQL as text":    {sql("st", "query", declared["open_orders"].SQL), false, "database.st.allow.mode", "denied"},
		"statements schema":                  {sql("st", "schema"), false, "database.st.allow", "denied"},
		"unknown profile":                    {sql("none", "query", q), false, "database.none.allow", "denied"},
		"dial without dial: true":            {sql("ro", "dial"), false, "database.ro.allow.dial", "denied"},
		"dial of sqlite":                     {sql("lite", "dial"), false, "database.lite.allow.dial", "denied"},
		"unknown operation":                  {sql("ro", "truncate", q), false, "", "unsupported"},
		"operation of another kind":          {sql("ro", "read"), false, "", "unsupported"},
	} {
		t.Run(name, func(t *testing.T) {
			d := p.Decide(c.op)
			want(t, d, c.allow, c.rule)
			if d.Code != c.code {
				t.Errorf("code %q, want %q", d.Code, c.code)
			}
			if d.Allow && d.Line == 0 {
				t.Error("the line of the rule is lost")
			}
			if strings.Contains(d.Fingerprint+d.Reason+d.Hint, "secret-literal") {
				t.Errorf("a literal shows: %+v", d)
			}
			if d.Allow && len(d.SQL) != len(c.op.Statements) {
				t.Errorf("SQL is %q", d.SQL)
			}
		})
	}
	if d := p.Decide(named("ro", "query", "open_orders", `"x"`)); !slices.Equal(d.SQL, []string{declared["open_orders"].SQL}) || d.Fingerprint == "" {
		t.Errorf("got %+v", d)
	}
	if d := p.Decide(policy.Operation{}); d.Allow {
		t.Error("nothing was allowed")
	}
	if (policy.Decision{}).Allow {
		t.Error("the zero Decision allows")
	}
}

// TestUnknownProfileLooksLikeNotAllowed compares what the caller sees, apart from the name that it sent itself.
func TestUnknownProfileLooksLikeNotAllowed(t *testing.T) {
	p := compile(t, policy.Config{
		Database: map[string]policy.Database{"real": pg(policy.ModeReadOnly)},
		Files:    map[string]policy.Files{"real": {Allow: []string{"list"}}},
		HTTP:     map[string]policy.HTTP{"real": {Host: "h", Port: 80, Allow: []policy.HTTPRule{{Methods: []string{"GET"}, Path: "/a"}}}},
		Line:     func(string) int { return 7 },
	})
	for _, op := range []func(profile string) policy.Operation{
		func(n string) policy.Operation { return sql(n, "exec", "update t set a = 1") },
		func(n string) policy.Operation { return sql(n, "dial") },
		func(n string) policy.Operation { return file(n, "read", "a") },
		func(n string) policy.Operation { return request(n, "POST", "/a") },
		func(n string) policy.Operation { return request(n, "GET", "/b") },
	} {
		a, b := p.Decide(op("real")), p.Decide(op("nope"))
		if a.Allow || b.Allow || a.Code != b.Code || strings.ReplaceAll(a.Rule+a.Reason+a.Hint, "real", "nope") != b.Rule+b.Reason+b.Hint {
			t.Errorf("differ:\n%+v\n%+v", a, b)
		}
	}
}

func TestRelayOnlyNarrows(t *testing.T) {
	db := pg(policy.ModeReadWrite)
	db.MaxRows, db.Timeout, db.Dial = 100, 30*time.Second, true
	db.Mask = policy.Mask{Columns: []string{"ssn"}}
	p := compile(t, policy.Config{
		Database: map[string]policy.Database{"db": db},
		Files:    map[string]policy.Files{"f": {Allow: []string{"read", "write", "delete", "move", "mkdir"}, MaxSize: 9}},
		TCP:      map[string]policy.TCP{"t": {Host: "erp.corp", Port: 3200}},
		HTTP:     map[string]policy.HTTP{"h": {Host: "h", Port: 80, Allow: []policy.HTTPRule{{Methods: []string{"GET", "POST"}, Path: "/**"}}}},
		Mask:     policy.Mask{Columns: []string{"*password*"}},
	})
	with := func(op policy.Operation, l protocol.Limits, left time.Duration) policy.Decision {
		op.Request.Limits, op.Request.Remaining = l, left
		return p.Decide(op)
	}
	d := with(sql("db", "query", "select 1"), protocol.Limits{MaxRows: 1000, MaxBytes: 5, MaskColumns: []string{"name"}}, time.Second)
	if !d.Allow || d.Limits != (policy.Limits{MaxRows: 100, MaxBytes: 5, Timeout: time.Second}) {
		t.Errorf("got %+v", d)
	}
	for _, set := range []interface{ Column(...string) bool }{d.Mask, d.EventMask} {
		if !set.Column("ssn") || !set.Column("name") || !set.Column("my_password") || set.Column("id") {
			t.Error("masks are not the union")
		}
	}
	d = with(sql("db", "query", "select 1"), protocol.Limits{MaxRows: 10}, time.Hour)
	if d.Limits != (policy.Limits{MaxRows: 10, Timeout: 30 * time.Second}) || d.Mask.Column("name") || !d.Mask.Column("ssn") {
		t.Errorf("got %+v", d)
	}
	ro := protocol.Limits{ReadOnly: true}
	for _, op := range []policy.Operation{sql("db", "exec", "update t set a = 1"), sql("db", "transaction", "update t set a = 1"), sql("db", "dial"), file("f", "write", "a"), file("f", "delete", "a"),
		file("f", "mkdir", "a"), request("h", "POST", "/"), {Request: &protocol.Request{Kind: protocol.KindTCP, Profile: "t", Operation: protocol.OpDial}},
		{Request: &protocol.Request{Kind: protocol.KindFiles, Profile: "f", Operation: protocol.OpMove, Path: "a", To: "b"}}} {
		if d := p.Decide(op); !d.Allow {
			t.Fatalf("%s: %+v", op.Request.Operation, d)
		}
		want(t, with(op, ro, 0), false, "relay.read_only")
	}
	for _, op := range []policy.Operation{sql("db", "query", "select 1"), file("f", "read", "a"), request("h", "GET", "/")} {
		if d := with(op, ro, 0); !d.Allow {
			t.Errorf("read_only refuses a read: %+v", d)
		}
	}
	for _, l := range []protocol.Limits{{MaxRows: -1}, {MaxBytes: -1}, {MaskColumns: []string{"[x"}}, {MaskColumns: []string{""}}} {
		if d := with(sql("db", "query", "select 1"), l, 0); d.Allow || d.Code != protocol.CodeInvalid {
			t.Errorf("limits %+v: got %+v", l, d)
		}
	}
}

func TestMaskIn(t *testing.T) {
	db := pg(policy.ModeReadOnly)
	db.Mask = policy.Mask{Columns: []string{"a"}, In: []string{"events"}}
	p := compile(t, policy.Config{Database: map[string]policy.Database{"db": db}, Mask: policy.Mask{Columns: []string{"b"}, In: []string{"answers"}}})
	d := p.Decide(sql("db", "query", "select 1"))
	if d.Mask.Column("a") || !d.Mask.Column("b") || !d.EventMask.Column("a") || d.EventMask.Column("b") {
		t.Error("in: does not narrow")
	}
	if d := p.Decide(sql("db", "query", "grant select on t to public")); !d.EventMask.Column("a") {
		t.Error("the event of a denial is not masked")
	}
	// What a relay sends cannot take the site's masks off an event.
	p = compile(t, policy.Config{Database: map[string]policy.Database{"db": pg(policy.ModeReadOnly)}, Mask: policy.Mask{Detect: []string{"email"}}})
	for name, op := range map[string]policy.Operation{
		"malformed limits":   {Request: &protocol.Request{Kind: protocol.KindDatabase, Profile: "db", Operation: protocol.OpQuery, Limits: protocol.Limits{MaxRows: -1}}},
		"unknown operation":  {Request: &protocol.Request{Kind: protocol.KindDatabase, Profile: "db", Operation: protocol.OpRead}},
		"malformed patterns": {Request: &protocol.Request{Kind: protocol.KindDatabase, Profile: "db", Operation: protocol.OpQuery, Limits: protocol.Limits{MaskColumns: []string{"["}}}},
	} {
		if d := p.Decide(op); d.Allow || !d.EventMask.Detects() {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestFilesVerbs(t *testing.T) {
	p := compile(t, policy.Config{Files: map[string]policy.Files{
		"hr":   {Allow: []string{"list", "read"}, Match: []string{"*.csv"}, MaxSize: 10},
		"in":   {Allow: []string{"write", "mkdir", "move", "delete"}, Match: []string{"inbox/**"}},
		"move": {Allow: []string{"move"}},
		"stat": {Allow: []string{"stat"}},
		"none": {},
	}})
	mv := func(profile, from, to string, over bool) policy.Operation {
		return policy.Operation{Request: &protocol.Request{Kind: protocol.KindFiles, Profile: profile, Operation: protocol.OpMove, Path: from, To: to, Overwrite: over}}
	}
	for _, c := range []struct {
		op    policy.Operation
		allow bool
		rule  string
	}{
		{file("hr", "list", ""), true, "files.hr.allow"},
		{file("hr", "read", "a.csv"), true, "files.hr.allow"},
		{file("hr", "stat", "a.csv"), true, "files.hr.allow"},
		{file("hr", "read", "a.txt"), false, "files.hr.match"},
		{file("hr", "read", "sub/a.csv"), false, "files.hr.match"},
		{file("hr", "list", "sub"), false, "files.hr.match"},
		{file("hr", "read", ""), false, "files.hr.allow"},
		{file("hr", "read", "../a.csv"), false, "files.hr.allow"},
		{file("hr", "write", "a.csv"), false, "files.hr.allow"},
		{file("hr", "delete", "a.csv"), false, "files.hr.allow"},
		{file("in", "write", "inbox/a"), true, "files.in.allow"},
		{file("in", "write", "inbox2/a"), false, "files.in.match"},
		{file("in", "mkdir", "inbox"), true, "files.in.allow"},
		{file("in", "mkdir", "other"), false, "files.in.match"},
		{file("in", "delete", ""), false, "files.in.allow"},
		{file("in", "stat", "inbox/a"), false, "files.in.allow"},
		{file("in", "read", "inbox/a"), false, "files.in.allow"},
		{mv("in", "inbox/a", "inbox/b", true), true, "files.in.allow"},
		{mv("in", "inbox/a", "b", false), false, "files.in.match"},
		{mv("in", "a", "inbox/b", false), false, "files.in.match"},
		{mv("in", "inbox/a", "../b", false), false, "files.in.allow"},
		{mv("in", "inbox/a", "", false), false, "files.in.allow"},
		{mv("move", "a", "b", false), true, "files.move.allow"},
		{mv("move", "a", "b", true), false, "files.move.allow"},
		{file("stat", "stat", ""), true, "files.stat.allow"},
		{file("stat", "list", ""), false, "files.stat.allow"},
		{file("none", "list", ""), false, "files.none.allow"},
		{file("gone", "list", ""), false, "files.gone.allow"},
	} {
		t.Run(c.op.Request.Profile+" "+string(c.op.Request.Operation)+" "+c.op.Request.Path+" "+c.op.Request.To, func(t *testing.T) {
			want(t, p.Decide(c.op), c.allow, c.rule)
		})
	}
	op := file("hr", "list", "")
	op.Request.Glob = "[x"
	if d := p.Decide(op); d.Allow {
		t.Error("a malformed glob was taken")
	}
	if d := p.Decide(file("hr", "read", "a.csv")); d.Path != "a.csv" || d.Limits.MaxSize != 10 || !d.Match.File("b.csv") || d.Match.File("b.txt") {
		t.Errorf("got %+v", d)
	}
}

func TestHTTPRules(t *testing.T) {
	p := compile(t, policy.Config{HTTP: map[string]policy.HTTP{"crm": {Host: "crm.corp", Port: 8443, Allow: []policy.HTTPRule{
		{Methods: []string{"GET"}, Path: "/api/v1/customers/*"}, {Methods: []string{"POST"}, Path: "/api/v1/orders"}, {Methods: []string{"GET"}, Path: "/files/**"}, {Methods: []string{"GET"}, Path: "/dir/"},
	}}}})
	for _, c := range []struct {
		method, target, rule string
		allow                bool
	}{
		{"GET", "/api/v1/customers/17", "http.crm.allow[0]", true},
		{"HEAD", "/api/v1/customers/17", "http.crm.allow[0]", true},
		{"GET", "/api/v1/customers/a%20b?x=/../admin", "http.crm.allow[0]", true},
		{"GET", "/api/v1/customers/%C3%BC", "http.crm.allow[0]", true},
		{"GET", "/api/v1/customers/", "http.crm.allow", false},
		{"GET", "/api/v1/customers", "http.crm.allow", false},
		{"GET", "/api/v1/customers/17/notes", "http.crm.allow", false},
		{"GET", "/api/v1/customers/17/", "http.crm.allow", false},
		{"GET", "/api/v1/customersX/17", "http.crm.allow", false},
		{"GET", "/api/v1/customers/../admin", "http.crm.allow", false},
		{"GET", "/api/v1/customers/%2e%2e/admin", "http.crm.allow", false},
		{"GET", "/api/v1/customers/..%2fadmin", "http.crm.allow", false},
		{"GET", "/api/v1/customers/..;/admin", "http.crm.allow", false},
		{"GET", "/API/v1/customers/17", "http.crm.allow", false},
		{"POST", "/api/v1/customers/17", "http.crm.allow", false},
		{"get", "/api/v1/customers/17", "http.crm.allow", false},
		{"POST", "/api/v1/orders", "http.crm.allow[1]", true},
		{"HEAD", "/api/v1/orders", "http.crm.allow", false},
		{"GET", "/files/a/b/c", "http.crm.allow[2]", true},
		{"GET", "/files/", "http.crm.allow[2]", true},
		{"GET", "/files", "http.crm.allow[2]", true},
		{"GET", "/filesX", "http.crm.allow", false},
		{"GET", "/files//a", "http.crm.allow", false},
		{"GET", "/dir/", "http.crm.allow[3]", true},
		{"GET", "/dir", "http.crm.allow", false},
		{"CONNECT", "/files/a", "http.crm.allow", false},
		{"TRACE", "/files/a", "http.crm.allow", false},
		{"GET /x HTTP/1.1\r\n", "/files/a", "http.crm.allow", false},
		{"GET", "http://evil/files/a", "http.crm.allow", false},
		{"GET", "//evil/files/a", "http.crm.allow", false},
	} {
		t.Run("A21 A22 "+c.method+" "+c.target, func(t *testing.T) {
			d := p.Decide(request("crm", c.method, c.target))
			want(t, d, c.allow, c.rule)
			if d.Allow && d.Target != c.target {
				t.Errorf("target is %q", d.Target)
			}
			if strings.ContainsAny(d.Reason, "\r\n") {
				t.Errorf("reason repeats the method: %q", d.Reason)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	bad := func(mod func(*policy.Config)) policy.Config {
		c := policy.Config{Database: map[string]policy.Database{}, Files: map[string]policy.Files{}, HTTP: map[string]policy.HTTP{}, TCP: map[string]policy.TCP{}}
		mod(&c)
		return c
	}
	web := func(r policy.HTTPRule) policy.Config {
		return bad(func(c *policy.Config) {
			c.HTTP["h"] = policy.HTTP{Host: "h", Port: 1, Allow: []policy.HTTPRule{r}}
		})
	}
	for name, c := range map[string]struct {
		c    policy.Config
		path string
	}{
		"allow without ports":    {policy.Config{Allow: []policy.Target{{Host: "a"}}}, "allow[0]"},
		"host and cidr":          {policy.Config{Deny: []policy.Target{{Host: "a", CIDR: "10.0.0.0/8"}}}, "deny[0]"},
		"neither":                {policy.Config{Deny: []policy.Target{{}}}, "deny[0]"},
		"A18 host bits":          {policy.Config{Deny: []policy.Target{{CIDR: "10.0.0.5/8"}}}, "deny[0].cidr"},
		"A8 numeric host":        {policy.Config{Deny: []policy.Target{{Host: "127.1"}}}, "deny[0].host"},
		"port 0":                 {policy.Config{Deny: []policy.Target{{Host: "a", Ports: ports(0)}}}, "deny[0].ports[0]"},
		"name of a profile":      {bad(func(c *policy.Config) { c.TCP["a/b"] = policy.TCP{Host: "h", Port: 1} }), `tcp["a/b"]`},
		"tcp without port":       {bad(func(c *policy.Config) { c.TCP["a"] = policy.TCP{Host: "h"} }), "tcp.a"},
		"tcp without host":       {bad(func(c *policy.Config) { c.TCP["a"] = policy.TCP{Port: 1} }), "tcp.a"},
		"unknown adapter":        {bad(func(c *policy.Config) { c.Database["a"] = policy.Database{Adapter: "db2"} }), "database.a.adapter"},
		"unknown mode":           {bad(func(c *policy.Config) { c.Database["a"] = pg("all") }), "database.a.allow.mode"},
		"empty mode":             {bad(func(c *policy.Config) { c.Database["a"] = pg("") }), "database.a.allow.mode"},
		"statements without any": {bad(func(c *policy.Config) { c.Database["a"] = pg("statements") }), "database.a.allow.mode"},
		"a write in read_only": {bad(func(c *policy.Config) {
			d := pg("read_only")
			d.Statements = map[string]policy.Statement{"x": {SQL: "delete from t"}}
			c.Database["a"] = d
		}), "database.a.statements.x.sql"},
		"a refused statement": {bad(func(c *policy.Config) {
			d := pg("statements")
			d.Statements = map[string]policy.Statement{"x": {SQL: "grant select on t to public"}}
			c.Database["a"] = d
		}), "database.a.statements.x.sql"},
		"unknown verb":            {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{Allow: []string{"exec"}} }), "files.a.allow[0]"},
		"glob way out":            {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{Match: []string{"../*"}} }), "files.a.match[0]"},
		"glob absolute":           {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{Match: []string{"/x"}} }), "files.a.match[0]"},
		"glob malformed":          {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{Match: []string{"[a"}} }), "files.a.match[0]"},
		"glob ** within a name":   {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{Match: []string{"a**"}} }), "files.a.match[0]"},
		"glob of many **":         {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{Match: []string{"**/a/**/b/**/c/**/d/**/e"}} }), "files.a.match[0]"},
		"http without methods":    {web(policy.HTTPRule{Path: "/"}), "http.h.allow[0].methods"},
		"http CONNECT":            {web(policy.HTTPRule{Methods: []string{"CONNECT"}, Path: "/"}), "http.h.allow[0].methods[0]"},
		"http method *":           {web(policy.HTTPRule{Methods: []string{"*"}, Path: "/"}), "http.h.allow[0].methods[0]"},
		"http relative path":      {web(policy.HTTPRule{Methods: []string{"GET"}, Path: "a"}), "http.h.allow[0].path"},
		"http ** in the middle":   {web(policy.HTTPRule{Methods: []string{"GET"}, Path: "/**/a"}), "http.h.allow[0].path"},
		"http * within a segment": {web(policy.HTTPRule{Methods: []string{"GET"}, Path: "/a*"}), "http.h.allow[0].path"},
		"http dot segment":        {web(policy.HTTPRule{Methods: []string{"GET"}, Path: "/a/../b"}), "http.h.allow[0].path"},
		"http escaped pattern":    {web(policy.HTTPRule{Methods: []string{"GET"}, Path: "/a%20b"}), "http.h.allow[0].path"},
		"mask column":             {policy.Config{Mask: policy.Mask{Columns: []string{"ok", ""}}}, "mask.columns[1]"},
		"mask detector":           {policy.Config{Mask: policy.Mask{Detect: []string{"iban"}}}, "mask.detect[0]"},
		"mask in":                 {policy.Config{Mask: policy.Mask{In: []string{"logs"}}}, "mask.in[0]"},
		"negative limit of files": {bad(func(c *policy.Config) { c.Files["a"] = policy.Files{MaxSize: -1} }), "files.a"},
		"sqlite with a host": {bad(func(c *policy.Config) {
			c.Database["a"] = policy.Database{Adapter: "sqlite", Mode: "read_only", Host: "h"}
		}), "database.a"},
		"database without a host": {bad(func(c *policy.Config) {
			c.Database["a"] = policy.Database{Adapter: "mysql", Mode: "read_only", Port: 1}
		}), "database.a"},
		"database numeric host 0x7": {bad(func(c *policy.Config) {
			c.Database["a"] = policy.Database{Adapter: "mysql", Mode: "read_only", Port: 1, Host: "0x7f.1"}
		}), "database.a.host"},
	} {
		t.Run(name, func(t *testing.T) {
			p, faults := policy.New(c.c)
			if p != nil || !slices.ContainsFunc(faults, func(f policy.Fault) bool { return f.Path == c.path && f.Message != "" }) {
				t.Errorf("got %v, %v", p, faults)
			}
		})
	}
}

func TestDigest(t *testing.T) {
	a := policy.Config{Files: map[string]policy.Files{"a": {Allow: []string{"list"}}, "b": {Allow: []string{"read"}}}, Rest: []byte("x"), Own: func(netip.Addr) bool { return false }}
	b := policy.Config{Files: map[string]policy.Files{"b": {Allow: []string{"read"}}, "a": {Allow: []string{"list"}}}, Rest: []byte("x"), Line: func(string) int { return 3 }}
	c := policy.Config{Files: map[string]policy.Files{"a": {Allow: []string{"list"}}, "b": {Allow: []string{"read", "write"}}}, Rest: []byte("x")}
	d := policy.Config{Files: a.Files, Rest: []byte("y")}
	if x := compile(t, a).Digest(); len(x) != 16 || x != compile(t, b).Digest() || x == compile(t, c).Digest() || x == compile(t, d).Digest() {
		t.Errorf("digest %q does not name the configuration", x)
	}
}

func TestOffers(t *testing.T) {
	db := pg(policy.ModeReadWrite)
	db.Dial = true
	st := pg(policy.ModeStatements)
	st.Statements = map[string]policy.Statement{"x": {SQL: "select 1"}}
	p := compile(t, policy.Config{
		Database: map[string]policy.Database{"rw": db, "ro": pg(policy.ModeReadOnly), "st": st},
		Files:    map[string]policy.Files{"f": {Allow: []string{"list"}}}, TCP: map[string]policy.TCP{"t": {Host: "h", Port: 1}},
	})
	got, err := json.Marshal(p.Offers())
	if err != nil {
		t.Fatal(err)
	}
	wantText := `[{"name":"ro","kind":"database","adapter":"postgresql","operations":["query","schema"]},` +
		`{"name":"rw","kind":"database","adapter":"postgresql","operations":["query","exec","transaction","schema","dial"]},` +
		`{"name":"st","kind":"database","adapter":"postgresql","operations":["query","exec","transaction"]},` +
		`{"name":"f","kind":"files","operations":["list","stat"]},{"name":"t","kind":"tcp","operations":["dial"]}]`
	if string(got) != wantText {
		t.Errorf("got  %s\nwant %s", got, wantText)
	}
}
