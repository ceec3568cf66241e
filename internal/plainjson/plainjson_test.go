package plainjson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestValue(t *testing.T) {
	for _, v := range []string{`{}`, `[]`, `""`, `0`, `-0`, `120`, `true`, `false`, `{"a":{"b":[1,"x",{}]},"c":"\u00e9\n\"\\\/"}`, `"` + strings.Repeat("x", 1<<16) + `"`} {
		for _, rest := range []string{"", ",1", "}", `"`} {
			if got, ok := Value([]byte(v + rest)); !ok || string(got) != rest {
				t.Errorf("%.80s: %q %v", v+rest, got, ok)
			}
		}
	}
	// Not ours: some of these encoding/json takes, and some it writes in another way.
	for _, v := range []string{"", " ", `{`, `[`, `{"`, `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{a:1}`, `{1:1}`, `{"a" :1}`, `{"a": 1}`, `{"a":1 }`, `[1,]`, `[1}`, `{"a":1]`, `[1 ]`, `{"a"}`, `["a":1]`,
		`01`, `-`, `1.5`, `1e3`, `1E3`, `+1`, `.5`, `nul`, `null`, `tru`, `truth`, `"`, `"\`, `"\x"`, `"\u`, `"\u12`, `"\u12g4"`, "\"\\u\x10\x10\x10\x10\"", `"<"`, `">"`, `"&"`, "\"\x7f\"", "\"é\"", "\"\xff\"", "\"\x00\"", "\"\n\"",
		strings.Repeat("[", maxDepth+2) + strings.Repeat("]", maxDepth+2), strings.Repeat("[", 1<<20)} {
		if rest, ok := Value([]byte(v)); ok {
			t.Errorf("%.80q is taken, with %.80q left", v, rest)
		}
	}
}

func FuzzValue(f *testing.F) {
	for _, s := range []string{`{"a":{"b":[1,"x",{}]},"c":"\u00e9\n\"\\\/"},`, `-0`, `01`, `[true,false,null]`, `"\u12`, `{"a":1.5e3}`, `"<"`, "\"é\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		rest, ok := Value(p)
		if !ok {
			return
		}
		v := p[:len(p)-len(rest)]
		if !bytes.Equal(p[len(v):], rest) {
			t.Fatalf("%q has the rest %q", p, rest)
		}
		var first json.RawMessage
		if err := json.NewDecoder(bytes.NewReader(p)).Decode(&first); err != nil || !bytes.Equal(first, v) {
			t.Fatalf("%q: encoding/json finds the value %q, %v", p, first, err)
		}
		if kept, err := json.Marshal(json.RawMessage(v)); err != nil || !bytes.Equal(kept, v) {
			t.Fatalf("%q becomes %q within JSON, %v", v, kept, err)
		}
	})
}

func FuzzAppendString(f *testing.F) {
	for _, s := range []string{"", "req_7", "a<b>&c\u2028\x00\xff\"\\\n\x7fé"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := json.Marshal(s)
		if got := AppendString([]byte("x"), s); err != nil || string(got) != "x"+string(want) {
			t.Fatalf("%q, and json.Marshal writes %q, %v", got, want, err)
		}
	})
}
