package sqldb

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/protocol"
)

func TestArguments(t *testing.T) {
	for _, c := range []struct{ raw, typ, text, why string }{
		{`1`, "", "1", ""}, {`"x"`, "", "x", ""}, {`null`, "", "", ""}, {`true`, "", "true", ""}, {`1.50`, "", "1.50", ""},
		{`[1]`, "", "", "is an array"}, {`{"a":1}`, "", "", "exactly type and value"}, {`{"type":"int"}`, "", "", "exactly type and value"}, {`{"type":"blurb","value":1}`, "", "", "not known"},
		{`{"type":"int","value":9223372036854775807}`, "int", "9223372036854775807", ""}, {`{"type":"int","value":"12"}`, "int", "12", ""}, {`{"type":"int","value":1.5}`, "", "", "not of type int"},
		{`{"type":"int","value":"1; drop"}`, "", "", "not of type int"}, {`{"type":"decimal","value":"1.10"}`, "decimal", "1.10", ""}, {`{"type":"bytea","value":"AP8="}`, "bytes", "\x00\xff", ""},
		{`{"type":"bytes","value":"?"}`, "", "", "not of type bytes"}, {`{"type":"uuid","value":"x"}`, "", "", "not of type uuid"}, {`{"type":"date","value":"2024-02-30"}`, "", "", "not of type date"},
		{`{"type":"timestamptz","value":"2024-01-01T00:00:00.5Z"}`, "timestamptz", "2024-01-01T00:00:00.5Z", ""}, {`{"type":"timestamp","value":"2024-01-01T00:00:00Z"}`, "", "", "not of type"},
		{`{"type":"json","value":{"a":[1]}}`, "json", `{"a":[1]}`, ""}, {`{"type":"int[]","value":[1,[2],null]}`, "int[]", `{"1",{"2"},NULL}`, ""}, {`{"type":"text[]","value":["a\"b\\","NULL"]}`, "text[]", `{"a\"b\\","NULL"}`, ""},
		{`{"type":"int","value":null}`, "int", "null", ""}, {`"\u0000"`, "", "", "NUL"}, {`x`, "", "", "not JSON"}, {``, "", "", "not JSON"}, {`{"type":"text","value":5}`, "", "", "not of type text"},
	} {
		a, why := decodeArg(PostgreSQL, json.RawMessage(c.raw), "")
		if c.why != "" {
			if !strings.Contains(why, c.why) {
				t.Errorf("%s: %q, want %q", c.raw, why, c.why)
			}
			continue
		}
		if why != "" || a.typ != c.typ || a.text != c.text {
			t.Errorf("%s: %+v %q", c.raw, a, why)
		}
	}
	if _, why := decodeArg(MySQL, json.RawMessage(`{"type":"int[]","value":[1]}`), ""); why == "" {
		t.Error("MySQL took an array")
	}
}

func TestParametersAreNeverSpliced(t *testing.T) {
	s := pgServer(t)
	before := pgChecksum(t, s)
	db := reader(t)
	for _, v := range []string{"'; delete from notes --", "$1", "$$", `\'; delete from notes --`, "\u2028", "') or 1=1 --"} {
		for _, sql := range []string{"select $1::text", "select -$2::int, $1::text", "select $a$ $1 $a$ || $1"} {
			list := []any{v}
			if strings.Contains(sql, "$2") {
				list = append(list, -1)
			}
			if a := query(t, db, sql, list...); a.Err != nil || !strings.Contains(a.Rows[0], strings.Trim(string(args(v)[0]), `"`)) && !strings.Contains(a.Rows[0], v) {
				t.Errorf("C9 %s with %q: %v %v", sql, v, a.Err, a.Rows)
			}
		}
	}
	if pgChecksum(t, s) != before {
		t.Error("the database has changed")
	}
}

func FuzzArguments(f *testing.F) {
	for _, s := range []string{`1`, `"x"`, `{"type":"int[]","value":[[1],[2]]}`, `{"type":"bytea","value":"AP8="}`, `{"type":"json","value":{}}`, `null`, `-1e5`, `{"type":"timestamptz","value":"2024-01-01T00:00:00Z"}`} {
		for _, want := range []string{"", "int", "text", "json"} {
			f.Add([]byte(s), want)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte, want string) {
		if want != "" && !validParam(PostgreSQL, want) {
			return
		}
		list, err := decodeArgs(PostgreSQL, []json.RawMessage{raw}, []string{want}, want != "")
		if err != nil {
			if protocol.AsError(err).Code != protocol.CodeInvalid {
				t.Fatal(err)
			}
			return
		}
		a := list[0]
		if want != "" {
			if w, _ := paramType(PostgreSQL, want); a.typ != w {
				t.Fatalf("type %q, want %q", a.typ, w)
			}
		}
		values, oids, formats := pgArgs(list)
		if a.null != (values[0] == nil) || (a.typ == "") != (oids[0] == 0) || (formats[0] == 1) != (a.typ == "bytes" && !a.null) {
			t.Fatalf("%+v → %q %v %v", a, values, oids, formats)
		}
		if elem, ok := strings.CutSuffix(a.typ, "[]"); ok && !a.null {
			if got := appendArray(nil, kText, ',', values[0], nil); !json.Valid(got) || got[0] != '[' {
				t.Fatalf("array of %s: %s became %s, %s", elem, raw, values[0], got)
			}
		}
		for _, x := range []string{MySQL, SQLite, SQLServer, Oracle} {
			if b, err := decodeArgs(x, []json.RawMessage{raw}, []string{want}, want != "" && validParam(x, want)); err == nil {
				_ = driverValue(b[0])
			}
		}
	})
}

func FuzzLineage(f *testing.F) {
	for _, s := range []string{"select a, b from t", "with x(a) as (select 1) select * from x", "select 'a''b', \"q\"\"\" from t where (a", "select", "", "select $$ a", "/* /*"} {
		f.Add(s, uint8(3))
	}
	m := compile("t.ssn")
	f.Fuzz(func(t *testing.T, sql string, n uint8) {
		l := trace(sql, m)
		for i := range int(n) {
			l.column(i, int(n))
		}
		// A statement of one select that names the column in its list masks at least one column.
		if !strings.ContainsAny(sql, "\\,()'\"`[]-/*.#$;") && utf8.ValidString(sql) && strings.HasPrefix(strings.ToLower(sql), "select ssn ") && !l.column(0, 1) {
			t.Fatalf("%q is clean", sql)
		}
	})
}

func FuzzEncode(f *testing.F) {
	f.Add([]byte("a\"b\\\n\x00\xff\u2028"))
	f.Add([]byte("{1,2,{3}}"))
	f.Add([]byte("2024-01-01 00:00:00.5+02:30"))
	f.Fuzz(func(t *testing.T, v []byte) {
		for k := kText; k <= kAny; k++ {
			if got := appendText(nil, k, v); !json.Valid(got) || strings.ContainsAny(string(got), "\n\r") {
				t.Fatalf("%s of %q: %s", k, v, got)
			}
			if got := appendArray(nil, k, ',', v, nil); !json.Valid(got) && strings.Count(string(v), "{") < 9000 && balanced(v) {
				t.Fatalf("array of %s of %q: %s", k, v, got)
			}
		}
		if got := appendInt(nil, v); !json.Valid(got) {
			t.Fatalf("%q: %s", v, got)
		}
		var s string
		if got := appendString(nil, v); json.Unmarshal(got, &s) != nil || utf8.Valid(v) && s != string(v) {
			t.Fatalf("%q: %s", v, got)
		}
	})
}

// balanced reports whether the braces outside quotes of an array literal match, as a database's always do.
func balanced(v []byte) bool {
	return len(v) > 0 && v[0] == '{' && !strings.ContainsAny(string(v[1:max(1, len(v)-1)]), `{}"\`) && v[len(v)-1] == '}'
}
