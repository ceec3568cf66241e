package main

import (
	"encoding/json"
	"path"
	"strings"
	"testing"
)

// Whatever is typed, an argument becomes one JSON value, and text that names no type arrives as it was typed.
func FuzzArgument(f *testing.F) {
	for _, s := range []string{"", "x", "int:5", "int:-0", "null:", "bool:true", "json:{}", "json:1 2", "bytes:aGk=", "int[]:[1]", "text:a:b", "https://x", "\x00\xff", "[]:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		v, err := argument(s)
		if err != nil {
			return
		}
		if !json.Valid(v) || strings.Contains(string(v), "\n") && !strings.HasPrefix(s, "json:") && !strings.Contains(s, "[]:") {
			t.Fatalf("%q became %q", s, v)
		}
		if !strings.Contains(s, ":") {
			var got string
			if json.Unmarshal(v, &got) != nil || got != strings.ToValidUTF8(s, "\ufffd") && strings.ToValidUTF8(s, "") == s {
				t.Fatalf("%q became %q", s, v)
			}
		}
	})
}

// A remote keeps what was typed behind the colon, but for one leading slash.
func FuzzRemote(f *testing.F) {
	for _, s := range []string{"", "a", "a:", "a:b", "a:/b", ":b", "a/b:c", "a:b:c", `a\b:c`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var r remote
		if r.UnmarshalText([]byte(s)) != nil {
			return
		}
		if r.connection == "" || path.Base(r.connection) != r.connection && r.connection != "." && r.connection != ".." {
			t.Fatalf("%q: connection %q", s, r.connection)
		}
		if s != r.connection+":"+r.path && s != r.connection+":/"+r.path {
			t.Fatalf("%q became %q", s, r)
		}
	})
}
