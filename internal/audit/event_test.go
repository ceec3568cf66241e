package audit

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/internal/secret"
)

func testMasker(t testing.TB, columns ...string) *Masker {
	t.Helper()
	s, err := mask.Compile(mask.Rules{Columns: columns, Detect: mask.Detectors()})
	must(t, err)
	return &Masker{Set: s, Key: secret.FromString("token key")}
}

// TestEveryFieldHasAClass: and a type that the encoder lets through, and a name.
func TestEveryFieldHasAClass(t *testing.T) {
	typ := reflect.TypeFor[Event]()
	for i := range typ.NumField() {
		f := typ.Field(i)
		switch f.Tag.Get("class") {
		case "public", "sensitive", "secret":
		default:
			t.Errorf("%s has the class %q", f.Name, f.Tag.Get("class"))
		}
		if f.Tag.Get("json") == "" {
			t.Errorf("%s has no name", f.Name)
		}
	}
	// Every public or sensitive field arrives, so that none is dropped for its type without anyone noticing.
	e := reflect.New(typ).Elem()
	for i := range typ.NumField() {
		switch f := e.Field(i); f.Interface().(type) {
		case time.Time:
			f.Set(reflect.ValueOf(time.Unix(1, 0)))
		case map[string]string:
			f.Set(reflect.ValueOf(map[string]string{"path": "x", "name": "y"}))
		case bool:
			f.SetBool(true)
		case int64:
			f.SetInt(7)
		default:
			f.SetString("v")
		}
	}
	out, err := e.Interface().(Event).Encode(testMasker(t))
	must(t, err)
	var got map[string]any
	must(t, json.Unmarshal(out, &got))
	if len(got) != typ.NumField() {
		t.Errorf("%d of %d fields arrive: %s", len(got), typ.NumField(), out)
	}
	if strings.Contains(string(out), `"principal_name":"v"`) || !strings.Contains(string(out), `"principal_name":"tok_`) {
		t.Errorf("a sensitive field arrives as it is: %s", out)
	}
}

// TestUnclassedIsDropped: K6, allow-list encoding.
func TestUnclassedIsDropped(t *testing.T) {
	type inner struct {
		A string `json:"a" class:"public"`
	}
	type strange struct {
		Good     string              `json:"good" class:"public"`
		Plain    string              `json:"plain"`
		Secret   string              `json:"secret" class:"secret"`
		Typo     string              `json:"typo" class:"pubic"`
		NoName   string              `class:"public"`
		Dash     string              `json:"-" class:"public"`
		hidden   string              //nolint:unused // reflection sees it
		Bytes    []byte              `json:"bytes" class:"public"`
		Any      any                 `json:"any" class:"public"`
		Err      error               `json:"err" class:"public"`
		Nested   inner               `json:"nested" class:"public"`
		Pointer  *string             `json:"pointer" class:"public"`
		List     []string            `json:"list" class:"public"`
		Deep     map[string][]string `json:"deep" class:"public"`
		Raw      json.RawMessage     `json:"raw" class:"public"`
		URL      url.URL             `json:"url" class:"public"`
		Sealed   secret.Bytes        `json:"sealed" class:"public"`
		Number   int64               `json:"number" class:"sensitive"` // a token of a number could be guessed by its type alone
		Whatever map[string]string   `json:"whatever" class:"public"`
		Tok      string              `json:"tok" class:"sensitive"`
	}
	const canary = "CANARY-3b1f"
	c := canary
	out, err := encode(reflect.ValueOf(strange{
		Good: "fine", Plain: c, Secret: c, Typo: c, NoName: c, Dash: c, hidden: c, Bytes: []byte(c), Any: c, Err: errors.New(c),
		Nested: inner{c}, Pointer: &c, List: []string{c}, Deep: map[string][]string{c: {c}}, Raw: json.RawMessage(`"` + c + `"`),
		URL: url.URL{Host: c}, Sealed: secret.FromString(c), Number: 4711, Whatever: map[string]string{c: c, "password": c, "path": "p"}, Tok: c,
	}), testMasker(t))
	must(t, err)
	for _, form := range []string{canary, base64.StdEncoding.EncodeToString([]byte(canary)), "4711", "redacted"} {
		if bytes.Contains(out, []byte(form)) {
			t.Errorf("%q is in %s", form, out)
		}
	}
	var got map[string]any
	must(t, json.Unmarshal(out, &got))
	if len(got) != 4 || got["good"] != "fine" || got["dropped"] != float64(2) || !strings.HasPrefix(got["tok"].(string), "tok_") ||
		got["whatever"].(map[string]any)["path"] != "p" {
		t.Errorf("%s", out)
	}
}

func TestMaskedInEvents(t *testing.T) {
	m := testMasker(t, "*path*")
	e := Event{
		Kind: KindIntent, Target: "of joe@example.com", Reason: "card 4111 1111 1111 1111", PrincipalName: "Joe",
		Detail: map[string]string{"path": "/secret/place", "to": "x@example.org", "username": "joe"},
	}
	out, err := e.Encode(m)
	must(t, err)
	for _, leak := range []string{"joe", "Joe", "4111", "place", "example.org"} {
		if bytes.Contains(out, []byte(leak)) {
			t.Errorf("%q is in %s", leak, out)
		}
	}
	again, err := e.Encode(m)
	must(t, err)
	if !bytes.Equal(out, again) {
		t.Error("the same value has two tokens")
	}
	other := &Masker{Set: m.Set, Key: secret.FromString("another workspace")}
	if o, err := e.Encode(other); err != nil || bytes.Equal(o, out) {
		t.Error("two workspaces have one token")
	}
	// K12: without a key there is no safe token: sensitive fields go.
	for _, none := range []*Masker{nil, {}} {
		out, err := e.Encode(none)
		must(t, err)
		if bytes.Contains(out, []byte("Joe")) || bytes.Contains(out, []byte(`"username"`)) || bytes.Contains(out, []byte("principal_name")) {
			t.Errorf("%s", out)
		}
	}
}

// TestHostileStrings: K1, in every string field.
func TestHostileStrings(t *testing.T) {
	hostile := map[string]string{
		"CRLF": "a\r\nb", "line separator": "a\u2028b\u2029c\u0085d", "NUL": "a\x00b", "ANSI": "\x1b[31mred\x9b0m", "RTL": "\u202eabc\u2066\u200f",
		"JSON": `","kind":"forged"}`, "megabyte": strings.Repeat("é", 1<<19), "not UTF-8": "\xff\xfe\xc3(", "BOM": "\ufeffx", "DEL": "\x7f",
		"tags": "<script>&amp;</script>", "emoji and private use": "😀\U000f0000\ue000", "zero width": "a\u200bb\u2060c",
		"megabyte of controls": strings.Repeat("\x01", 1<<20),
	}
	typ := reflect.TypeFor[Event]()
	for name, text := range hostile {
		t.Run("K1 "+name, func(t *testing.T) {
			all := Event{Detail: map[string]string{"path": text, text: text, "name": text}, Claimed: map[string]string{"principal": text}}
			v := reflect.ValueOf(&all).Elem()
			for i := range typ.NumField() {
				if v.Field(i).Kind() == reflect.String {
					v.Field(i).SetString(text)
				}
			}
			out, err := all.Encode(testMasker(t))
			must(t, err)
			checkLine(t, out)
			var got Event
			must(t, json.Unmarshal(out, &got))
			if len(text) < 1000 && utf8.ValidString(text) && got.Reason != text {
				t.Errorf("%q became %q", text, got.Reason)
			}
			if got.Detail["principal"] != "" || got.Kind == "forged" {
				t.Errorf("forged: %s", out)
			}
			one := Event{Reason: text}
			out, err = one.Encode(testMasker(t))
			must(t, err)
			checkLine(t, out)
			if len(text) > 1<<19 {
				must(t, json.Unmarshal(out, &got))
				if !strings.Contains(got.Reason, "…[1048576 bytes tok_") || len(got.Reason) > maxFieldBytes+64 {
					t.Errorf("cut to %d bytes, ends in %q", len(got.Reason), got.Reason[len(got.Reason)-60:])
				}
				one.Reason = text + "x"
				if longer, err := one.Encode(testMasker(t)); err != nil || bytes.Equal(longer, out) {
					t.Error("two long values look the same")
				}
			}
		})
	}
}

// TestCrammedEvent: every declared key in both maps, each far too long. The fact is recorded, and says that detail is missing.
func TestCrammedEvent(t *testing.T) {
	all := map[string]string{}
	for _, k := range strings.Fields("action adapter address agent algorithm connection count decision dialect digest etag from group " +
		"hash host id instance key kind limit method mode new offset old operation os path pattern peer port prefix principal profile") {
		if DetailClass(k) != "public" {
			t.Fatal(k)
		}
		all[k] = strings.Repeat("\x01", 1<<17)
	}
	out, err := Event{ID: "evt_x", Kind: KindIntent, Reason: "why", Detail: all, Claimed: all}.Encode(testMasker(t))
	must(t, err)
	checkLine(t, out)
	var got struct {
		ID, Reason string
		Dropped    int
	}
	must(t, json.Unmarshal(out, &got))
	if got.ID != "evt_x" || got.Reason != "why" || got.Dropped != 2*len(all) {
		t.Errorf("%s", out)
	}
}

// checkLine: one lawful line of printable text, and a body that a log keeps as it is.
func checkLine(t interface {
	Helper()
	Fatalf(string, ...any)
}, out []byte) {
	t.Helper()
	if len(out) > MaxEventBytes || !utf8.Valid(out) || !json.Valid(out) {
		t.Fatalf("%d bytes, or no JSON: %.200q", len(out), out)
	}
	for _, r := range string(out) {
		if !unicode.IsPrint(r) || r == '<' || r == '>' || r == '&' {
			t.Fatalf("%U is in the line", r)
		}
	}
	if c, err := canonical(out); err != nil || !bytes.Equal(c, out) {
		t.Fatalf("the log would change %q to %q (%v)", out, c, err)
	}
}

func TestEncodeProperty(t *testing.T) {
	m := testMasker(t, "to")
	text := rapid.OneOf(rapid.String(), rapid.StringN(0, 30000, -1), rapid.StringMatching(`[0-9 @.a-z\x00-\x1f]{0,40}`))
	rapid.Check(t, func(rt *rapid.T) {
		e := Event{
			ID: text.Draw(rt, "id"), Target: text.Draw(rt, "target"), Statement: text.Draw(rt, "statement"), Reason: text.Draw(rt, "reason"),
			Detail: rapid.MapOfN(rapid.OneOf(rapid.SampledFrom([]string{"to", "from", "path", "name"}), text), text, 0, 8).Draw(rt, "detail"),
		}
		out, err := e.Encode(m)
		if err != nil {
			rt.Fatal(err)
		}
		checkLine(rt, out)
		var got Event
		if err := json.Unmarshal(out, &got); err != nil {
			rt.Fatal(err)
		}
		for k := range got.Detail {
			if DetailClass(k) == "" {
				rt.Fatalf("the key %q got through", k)
			}
		}
		// What was masked stays as it is when it is encoded again.
		if again, changed := m.Set.Text(got.Reason); changed {
			rt.Fatalf("%q is left, and would be %q", got.Reason, again)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add("a", "b", "path")
	f.Add("\r\n\u2028\xff", strings.Repeat("4111 1111 1111 1111", 300), "name")
	m := testMasker(f)
	f.Fuzz(func(t *testing.T, a, b, key string) {
		out, err := Event{Target: a, PrincipalName: b, Statement: b, Detail: map[string]string{key: a, "from": b}}.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		checkLine(t, out)
	})
}

func BenchmarkEncode(b *testing.B) {
	m := testMasker(b)
	e := Event{
		ID: NewID(), Time: time.Now(), Kind: KindIntent, Source: "agt_x", Workspace: "ws_y", RequestID: "req_z", Principal: "usr_a",
		Profile: "sales", Operation: "query", Statement: "select id, total from orders where status = ?", Decision: "allow", Rule: "database.sales",
		Claimed: map[string]string{"principal": "usr_a"},
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.Encode(m); err != nil {
			b.Fatal(err)
		}
	}
}
