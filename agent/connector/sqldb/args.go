package sqldb

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/protocol"
)

const maxArgs = 32766 // the least that any adapter takes (SQLite)

// paramOID are the types that an argument may name, with PostgreSQL's type for each.
var paramOID = map[string]uint32{
	"int": 20, "decimal": 1700, "float": 701, "bool": 16, "text": 25, "bytes": 17, "timestamptz": 1184, "timestamp": 1114,
	"date": 1082, "time": 1083, "interval": 1186, "json": 114, "uuid": 2950,
}

// paramArrayOID are the arrays of those; PostgreSQL and Redshift only.
var paramArrayOID = map[string]uint32{
	"int[]": 1016, "decimal[]": 1231, "float[]": 1022, "bool[]": 1000, "text[]": 1009, "timestamptz[]": 1185, "timestamp[]": 1115,
	"date[]": 1182, "uuid[]": 2951,
}

// paramAlias are the databases' own names for them.
var paramAlias = map[string]string{
	"integer": "int", "bigint": "int", "int8": "int", "int4": "int", "smallint": "int", "numeric": "decimal", "double": "float",
	"boolean": "bool", "string": "text", "varchar": "text", "bytea": "bytes", "blob": "bytes", "jsonb": "json",
}

// ParamTypes lists the types that an argument or a named statement's parameter may have, for messages and documentation.
const ParamTypes = "int, decimal, float, bool, text, bytes, timestamptz, timestamp, date, time, interval, json, uuid"

func paramType(adapter, name string) (string, bool) {
	if a, ok := paramAlias[name]; ok {
		name = a
	}
	if _, ok := paramOID[name]; ok {
		return name, true
	}
	_, ok := paramArrayOID[name]
	return name, ok && postgres(adapter)
}

func validParam(adapter, name string) bool { _, ok := paramType(adapter, name); return ok }

func paramList(adapter string) string {
	if postgres(adapter) {
		return ParamTypes + ", and int[], decimal[], float[], bool[], text[], timestamptz[], timestamp[], date[], uuid[]"
	}
	return ParamTypes
}

func postgres(adapter string) bool { return adapter == PostgreSQL || adapter == Redshift }

// arg is one decoded argument.
type arg struct {
	typ  string // wire type; "" when the caller named none: the database decides
	null bool
	json byte   // what JSON value it was: n s b (number, string, bool) of untyped ones
	text string // the value as text; of bytes, the bytes themselves
}

// decodeArgs reads the arguments of one statement. want, when not nil, are the types that the site's file declares.
func decodeArgs(adapter string, raw []json.RawMessage, want []string, declared bool) ([]arg, error) {
	if len(raw) > maxArgs {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "%d arguments are more than %d", len(raw), maxArgs)
	}
	if declared && len(raw) != len(want) {
		return nil, protocol.Errorf(protocol.CodeInvalid, "the statement takes %d arguments, not %d", len(want), len(raw))
	}
	args := make([]arg, len(raw))
	for i, r := range raw {
		typ := ""
		if declared {
			typ = want[i]
		}
		a, why := decodeArg(adapter, r, typ)
		if why != "" {
			e := protocol.Errorf(protocol.CodeInvalid, "argument %d %s", i+1, why)
			e.Hint = `an argument is a JSON scalar, or {"type": T, "value": V} with T one of ` + paramList(adapter)
			return nil, e
		}
		args[i] = a
	}
	return args, nil
}

// decodeArg gives why the argument does not fit, without its value, or "".
func decodeArg(adapter string, raw json.RawMessage, want string) (arg, string) {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || !json.Valid(raw) {
		return arg{}, "is not JSON"
	}
	if want != "" {
		want, _ = paramType(adapter, want)
	}
	if raw[0] == '{' && want != "json" {
		var o struct {
			Type  *string         `json:"type"`
			Value json.RawMessage `json:"value"`
		}
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.DisallowUnknownFields()
		if dec.Decode(&o) != nil || o.Type == nil || o.Value == nil {
			return arg{}, "is an object without exactly type and value"
		}
		typ, ok := paramType(adapter, *o.Type)
		if !ok {
			return arg{}, "has a type that is not known"
		}
		if want != "" && want != typ {
			return arg{}, "has another type than the statement declares, " + want
		}
		return typedArg(typ, bytes.TrimSpace(o.Value))
	}
	if want != "" {
		return typedArg(want, raw)
	}
	switch raw[0] {
	case 'n':
		return arg{null: true}, ""
	case 't', 'f':
		return arg{json: 'b', text: string(raw)}, ""
	case '[':
		return arg{}, `is an array; say {"type": "int[]", "value": […]}`
	case '"':
		s, why := jsonText(raw)
		return arg{json: 's', text: s}, why
	}
	return arg{json: 'n', text: string(raw)}, ""
}

func jsonText(raw json.RawMessage) (string, string) {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return "", "is not a string"
	}
	if strings.IndexByte(s, 0) >= 0 {
		return "", "holds a NUL character, which no database takes in text"
	}
	return s, ""
}

// typedArg checks a value against its type. An explicit null fits every type.
func typedArg(typ string, raw json.RawMessage) (arg, string) {
	a := arg{typ: typ, text: string(raw)}
	if typ == "json" {
		return a, "" // any document, null too
	}
	if raw[0] == 'n' {
		a.null = true
		return a, ""
	}
	if elem, ok := strings.CutSuffix(typ, "[]"); ok {
		var why string
		a.text, why = arrayLiteral(elem, raw, 0)
		return a, why
	}
	num := raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9'
	if raw[0] == '"' {
		var why string
		if a.text, why = jsonText(raw); why != "" {
			return a, why
		}
	} else if !num && typ != "bool" {
		return a, "is not of type " + typ
	}
	ok := true
	switch typ {
	case "int":
		_, ok = new(big.Int).SetString(a.text, 10)
		ok = ok && len(a.text) <= 20 && a.text[0] != '+'
	case "decimal":
		ok = len(a.text) <= 1<<17 && (isNumber([]byte(a.text)) || !num && a.text == "NaN")
	case "float":
		_, err := strconv.ParseFloat(a.text, 64)
		ok = err == nil && (isNumber([]byte(a.text)) || a.text == "NaN" || a.text == "Infinity" || a.text == "-Infinity")
	case "bool":
		ok = a.text == "true" || a.text == "false"
	case "bytes":
		b, err := base64.StdEncoding.DecodeString(a.text)
		a.text, ok = string(b), err == nil && !num
	case "text", "interval":
		ok = !num && utf8.ValidString(a.text)
	case "timestamptz":
		_, ok = parseStamp(a.text)
	case "timestamp":
		ok = oneOf(a.text, "2006-01-02T15:04:05", "2006-01-02 15:04:05")
	case "date":
		ok = oneOf(a.text, "2006-01-02")
	case "time":
		ok = oneOf(a.text, "15:04:05", "15:04")
	case "uuid":
		ok = validUUID(a.text)
	}
	if !ok {
		return a, "is not of type " + typ
	}
	return a, ""
}

func oneOf(s string, layouts ...string) bool {
	for _, l := range layouts {
		if _, err := time.Parse(l, s); err == nil { // a fraction after the seconds is taken by Parse
			return true
		}
	}
	return false
}

func parseStamp(s string) (time.Time, bool) {
	for _, l := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07"} {
		if t, err := time.Parse(l, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}

// arrayLiteral writes a JSON array as PostgreSQL's array literal. Every element is quoted, so none can end it early.
func arrayLiteral(elem string, raw json.RawMessage, depth int) (string, string) {
	var list []json.RawMessage
	if depth > 5 || raw[0] != '[' || json.Unmarshal(raw, &list) != nil {
		return "", "is not an array of " + elem
	}
	b := []byte{'{'}
	for i, r := range list {
		if i > 0 {
			b = append(b, ',')
		}
		r = bytes.TrimSpace(r)
		switch {
		case r[0] == '[':
			s, why := arrayLiteral(elem, r, depth+1)
			if why != "" {
				return "", why
			}
			b = append(b, s...)
		case r[0] == 'n':
			b = append(b, "NULL"...)
		default:
			a, why := typedArg(elem, r)
			if why != "" {
				return "", "is not an array of " + elem
			}
			b = append(b, '"')
			for j := 0; j < len(a.text); j++ {
				if a.text[j] == '"' || a.text[j] == '\\' {
					b = append(b, '\\')
				}
				b = append(b, a.text[j])
			}
			b = append(b, '"')
		}
	}
	return string(append(b, '}')), ""
}

// pgArgs gives the arguments in the form of the extended protocol.
func pgArgs(args []arg) (values [][]byte, oids []uint32, formats []int16) {
	values, oids, formats = make([][]byte, len(args)), make([]uint32, len(args)), make([]int16, len(args))
	for i, a := range args {
		if oids[i] = paramOID[a.typ]; oids[i] == 0 {
			oids[i] = paramArrayOID[a.typ]
		}
		if a.null {
			continue
		}
		if a.typ == "bytes" {
			formats[i] = 1
		}
		values[i] = []byte(a.text)
	}
	return values, oids, formats
}
