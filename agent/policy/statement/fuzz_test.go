package statement

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// checkAnalysis states what holds for every text.
func checkAnalysis(t interface{ Fatalf(string, ...any) }, d Dialect, sql string) {
	a := Analyze(d, sql)
	if a.Class != ClassRead && a.Class != ClassWrite && a.Class != ClassRefused {
		t.Fatalf("class %q", a.Class)
	}
	if (a.Class == ClassRead) != (a.Reason == "") {
		t.Fatalf("class %s with reason %q", a.Class, a.Reason)
	}
	if len(a.Fingerprint) > MaxFingerprint || !utf8.ValidString(a.Fingerprint) || strings.ContainsAny(a.Fingerprint, "\n\r\x00") {
		t.Fatalf("fingerprint of %d bytes: %q", len(a.Fingerprint), a.Fingerprint)
	}
	unlexed := strings.HasPrefix(a.Fingerprint, "[unparsed ")
	if unlexed && a.Class != ClassRefused {
		t.Fatalf("class %s without tokens", a.Class)
	}
	if unlexed || len(a.Fingerprint) > MaxFingerprint-256 {
		return
	}
	again := Analyze(d, a.Fingerprint)
	if again.Fingerprint != a.Fingerprint {
		t.Fatalf("fingerprint is not its own:\n%q\n%q\n%q", sql, a.Fingerprint, again.Fingerprint)
	}
	if a.Class == ClassRefused {
		return
	}
	toks, _ := tokenize(d, sql)
	for i := range toks {
		if toks[i].is(";") && i != len(toks)-1 {
			t.Fatalf("class %s with a token after a terminator: %q", a.Class, sql)
		}
	}
	for _, end := range []string{"; drop table t", ";;", "/* */;/* */select 1", "\n;\ncommit"} {
		if b := Analyze(d, strings.TrimRight(sql, "; \n\t")+"\n"+end); b.Class != ClassRefused {
			t.Fatalf("class %s with %q after it: %q", b.Class, end, sql)
		}
	}
}

func FuzzAnalyze(f *testing.F) {
	for n, d := range dialects {
		for _, sql := range reads(f, d) {
			f.Add(uint8(n), sql)
		}
		for _, b := range bypasses(f, d) {
			if len(b[2]) < 1000 {
				f.Add(uint8(n), b[2])
			}
		}
		for _, sql := range lines(f, "write", string(d)+".txt") {
			f.Add(uint8(n), sql)
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, sql string) {
		checkAnalysis(t, dialects[int(n)%len(dialects)], sql)
	})
}

// TestAnalyzeHoldsForPieces builds statements of pieces that matter, which random bytes seldom hit.
func TestAnalyzeHoldsForPieces(t *testing.T) {
	pieces := []string{"select", "with", "as", "(", ")", ",", ";", "'", "''", "\"", "`", "[", "]", "\\", "--", "/*", "*/", "#", "\n",
		" ", "$$", "$a$", "$1", "?", ":x", "@x", "@@x", ":=", "e'", "q'[", "]'", "n'", "x", "t", "1", "1.5", "0x", ".", "-", "+",
		"into", "update", "delete from t", "drop table t", "for", "union", "all", "values", "end", "case", "'a'", "\"b\"", "%",
		"<", ">", "=", "|", "é", "\u00a0", "/*!", "explain", "exec", "replace(", "pg_sleep(", "row", "in", "over"}
	rapid.Check(t, func(r *rapid.T) {
		d := rapid.SampledFrom(dialects).Draw(r, "dialect")
		sql := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 40).Draw(r, "pieces"), rapid.SampledFrom(
			[]string{"", " "}).Draw(r, "between"))
		checkAnalysis(r, d, "select "+sql)
		checkAnalysis(r, d, sql)
	})
}

// literals writes a secret as every kind of literal that d has.
func literals(d Dialect, secret string) []string {
	out := []string{"'" + secret + "'", "'x''" + secret + "'", "'" + secret + "' 'b'"}
	switch d {
	case PostgreSQL:
		out = append(out, "$$"+secret+"$$", "$q$ "+secret+" $q$", "E'\\n"+secret+"'", "b'"+secret+"'", "n'"+secret+"'")
	case Redshift:
		out = append(out, "E'\\n"+secret+"'")
	case MySQL:
		out = append(out, "\""+secret+"\"", "\"a\"\""+secret+"\"", "N'"+secret+"'", "_utf8mb4'"+secret+"'", "x'"+secret+"'")
	case SQLite:
		out = append(out, "\""+secret+"\"", "x'"+secret+"'")
	case SQLServer:
		out = append(out, "N'"+secret+"'", "\""+secret+"\"")
	case Oracle:
		out = append(out, "q'["+secret+"]'", "nq'!"+secret+"!'", "N'"+secret+"'")
	}
	return out
}

// TestFingerprintHoldsNoLiteral: a planted literal stands in no fingerprint, no reason and no list of tables.
func TestFingerprintHoldsNoLiteral(t *testing.T) {
	shapes := []string{"select %s", "select * from t where a = %s", "select * from t where a in (1, %s, 2)", "select f(%s)",
		"insert into t values (%s)", "update t set a = %s", "delete from t where a like %s", "select a from t where a=%s-- %s",
		"select a /* %s */ from t where b <> %s", "%s", "drop table t; select %s", "set password = %s", "select a from %s",
		"grant %s", "call p(%s)", "select (%s", "select %s from t into outfile %s", "select case when a = %s then %s end",
		"select * from t where %s.a = 1", "select %s(1)", "exec p %s", "alter user u identified by %s", "select a as %s from t"}
	rapid.Check(t, func(r *rapid.T) {
		d := rapid.SampledFrom(dialects).Draw(r, "dialect")
		secret := rapid.StringMatching(`z[a-z0-9]{11,30}z`).Draw(r, "secret")
		if rapid.Bool().Draw(r, "number") {
			secret = rapid.StringMatching(`[1-9][0-9]{11,17}`).Draw(r, "digits")
		}
		lits := literals(d, secret)
		if secret[0] != 'z' {
			lits = append(lits, secret, "-"+secret, secret+".5", "0x"+secret, secret+"e5", "- "+secret)
		}
		shape := rapid.SampledFrom(shapes).Draw(r, "shape")
		sql := strings.ReplaceAll(shape, "%s", rapid.SampledFrom(lits).Draw(r, "literal"))
		a := Analyze(d, sql)
		kept := a.Fingerprint + "\n" + a.Reason + "\n" + a.Verb
		// "…" is a name wherever a string cannot stand, and a name is kept.
		nameLike := strings.Contains(sql, `"`) && (strings.Contains(shape, "from %s") || strings.Contains(shape, "%s.a"))
		if !nameLike {
			kept += fmt.Sprint(a.Tables)
		}
		if !nameLike && d != SQLite && strings.Contains(strings.ToLower(kept), secret) ||
			strings.Contains(strings.ToLower(a.Reason), secret) {
			r.Fatalf("%s: %q stands in %q", d, sql, kept)
		}
		if d == SQLite && !nameLike && strings.Contains(a.Fingerprint, secret) {
			r.Fatalf("%s: %q stands in %q", d, sql, a.Fingerprint)
		}
	})
}

func FuzzFingerprint(f *testing.F) {
	for n, d := range dialects {
		for _, sql := range reads(f, d) {
			f.Add(uint8(n), sql, "topsecretvalue")
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, sql, secret string) {
		d := dialects[int(n)%len(dialects)]
		if len(secret) < 8 || strings.ContainsAny(secret, "'\\\x00") || !utf8.ValidString(secret) || strings.Contains(sql, secret) {
			return
		}
		for i := range sql { // a literal put in the place of each empty one
			if strings.HasPrefix(sql[i:], "''") {
				planted := sql[:i] + "'" + secret + "'" + sql[i+2:]
				toks, reason := tokenize(d, planted)
				if reason != "" {
					continue
				}
				for _, tok := range toks {
					if tok.kind == str && tok.start == i && strings.Contains(Analyze(d, planted).Fingerprint, secret) {
						t.Fatalf("%q stands in the fingerprint of %q", secret, planted)
					}
				}
			}
		}
	})
}

func TestCaps(t *testing.T) {
	for name, sql := range map[string]string{
		"bytes":  "select '" + strings.Repeat("a", MaxBytes) + "'",
		"tokens": "select " + strings.Repeat("a,", MaxTokens/2+1) + "a",
		"depth":  "select " + strings.Repeat("(", MaxDepth+1) + "1" + strings.Repeat(")", MaxDepth+1),
	} {
		t.Run("C8 "+name, func(t *testing.T) {
			for _, d := range dialects {
				if a := Analyze(d, sql); a.Class != ClassRefused || len(a.Fingerprint) > MaxFingerprint {
					t.Errorf("%s: class %s, fingerprint of %d bytes", d, a.Class, len(a.Fingerprint))
				}
			}
		})
	}
	for _, d := range dialects {
		sql := "select a from t where a in (" + strings.Repeat("'id', ", 10_000) + "'id')"
		if a := Analyze(d, sql); a.Class != ClassRead || a.Fingerprint != "select a from t where a in (?)" {
			t.Errorf("%s: a list of 10,000: class %s (%s) %s", d, a.Class, a.Reason, a.Fingerprint)
		}
	}
}

func BenchmarkAnalyze(b *testing.B) {
	sql := "select o.id, o.total, c.name from orders o join customers c on c.id = o.customer where o.status = 'open' and " +
		"o.created_at >= now() - interval '7 days' order by o.created_at desc limit 100"
	b.SetBytes(int64(len(sql)))
	b.ReportAllocs()
	for b.Loop() {
		if Analyze(PostgreSQL, sql).Class != ClassRead {
			b.Fatal("refused")
		}
	}
}

// BenchmarkAnalyzeWorst is the largest statement that is looked at.
func BenchmarkAnalyzeWorst(b *testing.B) {
	for _, part := range []string{"case else ", "a,(", "from a,", "with a as (", "x.", "- - ", "'\\\\',", "update set "} {
		sql := "select " + strings.Repeat(part, 80_000/strings.Count(part, "")*3)
		b.Run(part, func(b *testing.B) {
			for b.Loop() {
				for _, d := range dialects {
					Analyze(d, sql)
				}
			}
		})
	}
}
