package mask

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func compile(t testing.TB, r Rules) *Set {
	t.Helper()
	s, err := Compile(r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestColumn(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"ssn", "ssn", true},
		{"ssn", "SSN", true},
		{"SSN", "users.ssn", true},
		{"ssn", "public.users.ssn", true},
		{"ssn", "ssn2", false},
		{"ssn", "ssn.users", false},
		{"*.email", "users.email", true},
		{"*.email", "public.users.email", true},
		{"*.email", "email", true}, // the table may be any
		{"*.email", "users.email2", false},
		{"users.email", "users.email", true},
		{"users.email", "public.users.email", true},
		{"users.email", "orders.email", false},
		{"users.email", "email", true},
		{"hr.*.salary", "hr.staff.salary", true},
		{"hr.*.salary", "sales.staff.salary", false},
		{"hr.*.salary", "staff.salary", true},
		{"*password*", "password", true},
		{"*password*", "user_Password_hash", true},
		{"*password*", "passwords.id", false}, // label by label: a table of that name is not meant
		{"*", "anything", true},
		{"a?c", "abc", true},
		{"a?c", "aéc", true},
		{"a?c", "ac", false},
		{"a*b*c", "aXXbYYbZc", true},
		{"a*b*c", "aXXbYYbZ", false},
		{"straße", "STRAßE", true},
		{"k*", "\u212aelvin", true}, // the Kelvin sign folds to k
		{"É*", "élan", true},
		{"", "", false},
	} {
		t.Run(c.pattern+" "+c.name, func(t *testing.T) {
			s, err := Compile(Rules{Columns: []string{c.pattern}})
			if c.pattern == "" {
				if err == nil {
					t.Fatal("an empty pattern was taken")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Column(c.name); got != c.want {
				t.Errorf("Column = %v", got)
			}
			if got := s.Column("other", c.name); got != c.want && c.pattern != "*" {
				t.Errorf("as one of several names: %v", got)
			}
		})
	}
	s := compile(t, Rules{Columns: []string{"secret*"}})
	if !s.ColumnPath("public", "t", "secret.x") || s.ColumnPath("public", "secrets", "x") {
		t.Error("a label with a dot is not one label")
	}
	if s.ColumnPath() || s.Column() {
		t.Error("no name is masked")
	}
	if !compile(t, Rules{Columns: []string{"t.c"}}).ColumnPath("", "c") {
		t.Error("an unknown table is not any table")
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, r := range []Rules{
		{Columns: []string{"a..b"}}, {Columns: []string{".a"}}, {Columns: []string{"a."}}, {Columns: []string{" a"}},
		{Columns: []string{"[a-z]*"}}, {Columns: []string{`a\*`}}, {Columns: []string{"{a,b}"}}, {Columns: []string{"a\xff"}},
		{Columns: []string{strings.Repeat("a", MaxPatternBytes+1)}}, {Columns: make([]string, MaxPatterns+1)},
		{Detect: []string{"card"}}, {Detect: []string{""}}, {Detect: []string{"EMAIL"}},
	} {
		if s, err := Compile(r); err == nil {
			t.Errorf("%v: taken as %+v", r, s)
		}
	}
}

func TestNilMasksNothing(t *testing.T) {
	var s *Set
	if s.Column("a") || s.Detects() || !s.Empty() {
		t.Error("nil masks")
	}
	if out, changed := s.Text("4111111111111111"); changed || out != "4111111111111111" {
		t.Error("nil changes text")
	}
	if Union(nil, nil) != nil {
		t.Error("union of nothing")
	}
}

func TestDetect(t *testing.T) {
	s := compile(t, Rules{Detect: []string{"payment_card", "email"}})
	const m = Masked
	for _, c := range []struct{ name, in, want string }{
		{"plain", "pay 4111111111111111 now", "pay " + m + " now"},
		{"spaces", "4111 1111 1111 1111", m},
		{"hyphens", "x4111-1111-1111-1111x", "x" + m + "x"},
		{"points", "4111.1111.1111.1111", m},
		{"no-break space", "4111\u00a01111\u00a01111\u00a01111", m},
		{"en dash", "4111–1111–1111–1111", m},
		{"wide hyphens", "4111 - 1111 - 1111 - 1111", m},
		{"amex", "3782 822463 10005", m},
		{"amex plain", "378282246310005", m},
		{"diners", "30569309025904", m},
		{"13 digits", "4222222222222", m},
		{"19 digits", "6304000000000000017", "6304000000000000017"}, // fails Luhn
		{"19 digits, good", "6304000000000000000", m},
		{"mastercard 2", "2223003122003222", m},
		{"two", "4111111111111111,5555555555554444", m + "," + m},
		{"two with space", "4111111111111111 5555555555554444", m + " " + m},
		{"behind other digits", "12 4111 1111 1111 1111", "12 " + m},
		{"before other digits", "4111 1111 1111 1111 12/27", m + " 12/27"},
		{"luhn fails", "4111111111111112", "4111111111111112"},
		{"12 digits", "411111111111", "411111111111"},
		{"inside a longer run", "94111111111111111999", "94111111111111111999"},
		{"20 digits", "41111111111111110000", "41111111111111110000"},
		{"milliseconds", "1763764843000", "1763764843000"},
		{"fraction", "0.2345678901234561", "0.2345678901234561"},
		{"fraction that passes Luhn", "0.4111111111111111", "0.4111111111111111"},
		{"card, point, card", "4111111111111111.4111111111111111", m + "." + m},
		{"dates", "2024-01-15 2024-01-16", "2024-01-15 2024-01-16"},
		{"ip", "10.20.30.40 10.20.30.41", "10.20.30.40 10.20.30.41"},
		{"json", `{"n":"4111111111111111"}`, `{"n":"` + m + `"}`},
		{"mail", "to joe@example.com.", "to " + m + "."},
		{"plus", "<joe+x@sub.example.co.uk>", "<" + m + ">"},
		{"encoded", "u=joe%40example.com&x", "u=" + m + "&x"},
		{"idn", "jörg@bücher.example", m},
		{"punycode", "a@xn--bcher-kva.xn--p1ai", m},
		{"quoted", `"joe doe"@example.com`, m},
		{"no domain", "joe@localhost", "joe@localhost"},
		{"no local", "@example.com", "@example.com"},
		{"handle", "hi @joe and a@b", "hi @joe and a@b"},
		{"numbers", "a@1.2.3.4", "a@1.2.3.4"},
		{"two mails", "a@b.de,c@d.fr", m + "," + m},
		{"chain", "a@b.de@c.fr", m + "@c.fr"},
		{"card in mail", "4111111111111111@example.com", m},
		{"card behind mail", "a@b.com4111111111111111", m + m},
		{"not UTF-8", "\xff4111111111111111\xfe", "\xff" + m + "\xfe"},
		{"empty", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, changed := s.Text(c.in)
			if c.name == "encoded" { // = is lawful in a local part; masking more is right
				if strings.Contains(got, "joe") {
					t.Errorf("%q", got)
				}
				return
			}
			if got != c.want || changed != (c.in != c.want) {
				t.Errorf("%q became %q (changed %v), want %q", c.in, got, changed, c.want)
			}
		})
	}
	if out, _ := compile(t, Rules{Detect: []string{"email"}}).Text("4111111111111111"); out != "4111111111111111" {
		t.Error("a detector that was not asked for ran")
	}
}

// digitsAndMail draws text that is dense in what the detectors look for.
func digitsAndMail() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		parts := rapid.SliceOfN(rapid.OneOf(
			rapid.SampledFrom([]string{
				"4111111111111111", "4111", "1111", "378282246310005", "5555 5555 5555 4444", ".", "-", " ", "@", "%40", "a@b.de", "x", ".com",
				"\"", Masked, "0.", "\u00a0", "–", "é", "\xff", "[", "]", "12", "305", "40000000000000000002",
			}),
			rapid.StringMatching(`[0-9]{1,20}`), rapid.String(),
		), 0, 12).Draw(t, "parts")
		return strings.Join(parts, "")
	})
}

func TestTextIsIdempotent(t *testing.T) {
	s := compile(t, Rules{Detect: Detectors()})
	rapid.Check(t, func(rt *rapid.T) {
		in := digitsAndMail().Draw(rt, "text")
		once, changed := s.Text(in)
		if changed != (once != in) {
			rt.Fatalf("changed is %v for %q", changed, in)
		}
		if twice, again := s.Text(once); again {
			rt.Fatalf("%q became %q and then %q", in, once, twice)
		}
	})
}

// TestCardsAreFound plants card numbers that pass Luhn, written with separators, between text that holds no digits.
func TestCardsAreFound(t *testing.T) {
	s := compile(t, Rules{Detect: []string{DetectPaymentCard}})
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(minCard, maxCard).Draw(rt, "digits")
		d := []byte{byte('2' + rapid.IntRange(0, 4).Draw(rt, "first"))}
		for len(d) < n-1 {
			d = append(d, byte('0'+rapid.IntRange(0, 9).Draw(rt, "digit")))
		}
		for c := byte('0'); c <= '9'; c++ {
			if luhn(append(d[:len(d):len(d)], c)) {
				d = append(d, c)
				break
			}
		}
		sep := rapid.SampledFrom([]string{"", " ", "-", ".", " - "}).Draw(rt, "sep")
		var b strings.Builder
		for i, c := range d {
			if i > 0 && i%4 == 0 && n-i >= minGroup {
				b.WriteString(sep)
			}
			b.WriteByte(c)
		}
		around := rapid.StringMatching(`[a-z :,;/"]{0,9}`)
		before, after := around.Draw(rt, "before"), around.Draw(rt, "after")
		if got, _ := s.Text(before + b.String() + after); got != before+Masked+after {
			rt.Fatalf("%q became %q", before+b.String()+after, got)
		}
		// One digit more on either side and it is part of a longer run; in a run of 20 or more nothing is a card.
		long := strings.Repeat("7", maxCard+1-n) + string(d)
		if got, changed := s.Text(long); changed {
			rt.Fatalf("%q became %q", long, got)
		}
	})
}

func TestUnionOnlyAdds(t *testing.T) {
	patterns := rapid.SliceOfN(rapid.StringMatching(`[ab*?]{1,3}(\.[ab*]{1,2})?`), 0, 3)
	detect := rapid.SliceOfN(rapid.SampledFrom(Detectors()), 0, 2)
	rapid.Check(t, func(rt *rapid.T) {
		rules := func(l string) *Set {
			s, err := Compile(Rules{Columns: patterns.Draw(rt, l), Detect: detect.Draw(rt, l+"d")})
			if err != nil {
				rt.Fatal(err)
			}
			if rapid.IntRange(0, 9).Draw(rt, l+"nil") == 0 {
				return nil
			}
			return s
		}
		a, b := rules("a"), rules("b")
		u, v := Union(a, b), Union(b, a)
		name := rapid.StringMatching(`[abAB]{0,3}(\.[abB]{1,3}){0,2}`).Draw(rt, "name")
		if got, want := u.Column(name), a.Column(name) || b.Column(name); got != want || v.Column(name) != want {
			rt.Fatalf("column %q: union %v, swapped %v, want %v", name, got, v.Column(name), want)
		}
		text := digitsAndMail().Draw(rt, "text")
		for _, s := range []*Set{a, b} {
			masked, _ := u.Text(text)
			if again, changed := s.Text(masked); changed {
				rt.Fatalf("the union left %q in %q for one of its parts", masked, again)
			}
		}
	})
}

// TestGlobAgainstModel holds glob against a plain recursive matcher.
func TestGlobAgainstModel(t *testing.T) {
	var model func(p, s []rune) bool
	model = func(p, s []rune) bool {
		switch {
		case len(p) == 0:
			return len(s) == 0
		case p[0] == '*':
			return model(p[1:], s) || len(s) > 0 && model(p, s[1:])
		case len(s) == 0:
			return false
		}
		return (p[0] == '?' || p[0] == s[0]) && model(p[1:], s[1:])
	}
	rapid.Check(t, func(rt *rapid.T) {
		p := rapid.StringMatching(`[abé*?]{0,8}`).Draw(rt, "pattern")
		s := rapid.StringMatching(`[abé]{0,10}`).Draw(rt, "name")
		if glob(p, s) != model([]rune(p), []rune(s)) {
			rt.Fatalf("glob(%q, %q) = %v", p, s, glob(p, s))
		}
	})
}

// TestLinear compares the time for n and 16·n bytes of the worst texts. Quadratic time would show a factor of 256.
func TestLinear(t *testing.T) {
	s := compile(t, Rules{Detect: Detectors()})
	for _, unit := range []string{
		"4111 ", "1", "411 ", "a", "a@", "@", "a@b.", "\"", "\"@", "%40", "a.b@c.", "4111111111111111.", "a@b.com4111111111111111", "-", "4111-",
	} {
		run := func(n int) time.Duration {
			text := strings.Repeat(unit, n/len(unit))
			best := time.Hour
			for range 5 {
				start := time.Now()
				s.Text(text)
				best = min(best, time.Since(start))
			}
			return best
		}
		small, large := run(1<<16), run(1<<20)
		if large > 100*max(small, 50*time.Microsecond) {
			t.Errorf("%q: %v for 64 KiB and %v for 1 MiB", unit, small, large)
		}
	}
}

func TestToken(t *testing.T) {
	k := []byte("key")
	a := Token(k, "name", "joe")
	if len(a) != 26 || !strings.HasPrefix(a, "tok_") || a != Token(k, "name", "joe") {
		t.Errorf("%q", a)
	}
	for _, o := range []string{Token(k, "name", "jo"), Token(k, "nam", "ejoe"), Token([]byte("other"), "name", "joe"), Token(k, "", "namejoe")} {
		if o == a {
			t.Error("two values have one token")
		}
	}
	if Token(nil, "name", "joe") != Masked {
		t.Error("a token without a key")
	}
	// Tokens stand in records for years: they are what they were, whatever came before under the key.
	var many Tokens
	for range 3 {
		many.Append(nil, k, "class", strings.Repeat("x", 5000))
		many.Append(nil, k, "", "")
		if got := string(many.Append([]byte("x"), k, "name", "joe")); got != "x"+a || a != "tok_DSCoY4rP7EarqwlWZUFOYA" {
			t.Errorf("%q and %q", got, a)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{
		"4111 1111 1111 1111", "a@b.com4111111111111111", "x@a.bc.4111111111111111", "4111111111111111.4111111111111111",
		`"a b"@c.de`, "a%40b.de", "1.4111111111111111", "4-1-1", Masked + "@b.de",
	} {
		f.Add(s)
	}
	s, err := Compile(Rules{Detect: Detectors()})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, changed := s.Text(in)
		if changed == (once == in) {
			t.Fatalf("changed is %v", changed)
		}
		if twice, again := s.Text(once); again {
			t.Fatalf("%q became %q and then %q", in, once, twice)
		}
		if bytes.Count([]byte(once), []byte("4111111111111111")) > 0 && !strings.Contains(once, "4111111111111111"+"0") {
			for _, r := range []string{" 4111111111111111 ", "=4111111111111111&"} {
				if strings.Contains(once, r) {
					t.Fatalf("a card is left in %q", once)
				}
			}
		}
	})
}

func BenchmarkText(b *testing.B) {
	s, err := Compile(Rules{Detect: Detectors()})
	if err != nil {
		b.Fatal(err)
	}
	for _, text := range []string{"Jane Miller, 12 High Street", "card 4111 1111 1111 1111 of jane@example.com", strings.Repeat("4111 ", 800)} {
		b.Run(fmt.Sprint(len(text)), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				s.Text(text)
			}
		})
	}
}

func BenchmarkColumn(b *testing.B) {
	s, err := Compile(Rules{Columns: []string{"ssn", "*.email", "*password*"}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.Column("public.users.created_at")
	}
}
