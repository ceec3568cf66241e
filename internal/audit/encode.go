package audit

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/internal/mask"
	"github.com/fairleadhq/fairlead/internal/plainjson"
	"github.com/fairleadhq/fairlead/internal/secret"
)

// Limits of an encoded event.
const (
	MaxEventBytes = 16 << 10
	maxFieldBytes = 4 << 10
	maxScanBytes  = 64 << 10 // of one field that the detectors look at; far more than is kept
	maxDetail     = 64       // keys in one map
)

// Masker decides what an event shows. It is not copied or changed after its first use. The zero Masker and nil mask nothing of public fields and drop sensitive ones, for without a
// key there is no safe token.
type Masker struct {
	Set *mask.Set    // detectors run over every public string; column patterns are held against detail keys
	Key secret.Bytes // of this workspace's tokens

	tokens mask.Tokens // under Key
}

// Encode gives the event as one line of JSON of at most MaxEventBytes. Only fields and detail keys with a class get through, and of
// those only strings, numbers, booleans, times and maps of strings: everything else is dropped. Strings are masked, cut to
// 4 KiB with a keyed digest of the rest, and leave with everything escaped that is not printable: control characters, line
// and paragraph separators, direction marks, <, > and &. Bytes that are not UTF-8 become U+FFFD.
func (e Event) Encode(m *Masker) ([]byte, error) { return encode(reflect.ValueOf(e), m) }

func encode(v reflect.Value, m *Masker) ([]byte, error) {
	fields := planOf(v.Type())
	if m == nil {
		m = &Masker{}
	}
	for limit := maxFieldBytes; limit >= 32; limit /= 2 {
		enc := encoder{m: m, limit: limit, out: make([]byte, 0, 1024)}
		enc.object(v, fields)
		if len(enc.out) <= MaxEventBytes {
			return enc.out, nil
		}
	}
	// Only crammed maps come here. The fact itself is recorded all the same.
	enc := encoder{m: m, limit: 32, out: make([]byte, 0, MaxEventBytes), noDetail: true}
	if enc.object(v, fields); len(enc.out) > MaxEventBytes {
		return nil, errors.New("audit event is too large even with every field cut")
	}
	return enc.out, nil
}

type field struct {
	index     int
	name      string
	omitempty bool
	sensitive bool
}

var plans sync.Map // reflect.Type → []field

// planOf lists the fields that have a class. A field that has none, or one that is not known, is not in the plan.
func planOf(t reflect.Type) []field {
	if p, ok := plans.Load(t); ok {
		return p.([]field)
	}
	var plan []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		class := f.Tag.Get("class")
		if !f.IsExported() || name == "" || name == "-" || (class != "public" && class != "sensitive") {
			continue
		}
		plan = append(plan, field{i, name, opts == "omitempty", class == "sensitive"})
	}
	plans.Store(t, plan)
	return plan
}

type encoder struct {
	m        *Masker
	limit    int
	out      []byte
	dropped  int
	noDetail bool
}

func (e *encoder) object(v reflect.Value, fields []field) {
	e.out = append(e.out, '{')
	for _, f := range fields {
		fv := v.Field(f.index)
		if f.omitempty && (fv.IsZero() || fv.Kind() == reflect.Map && fv.Len() == 0) {
			continue
		}
		e.value(f, fv)
	}
	if e.dropped > 0 {
		e.member("dropped")
		e.out = strconv.AppendInt(e.out, int64(e.dropped), 10)
	}
	e.out = append(e.out, '}')
}

// value writes a member if its type is one of those allowed.
func (e *encoder) value(f field, v reflect.Value) {
	if f.sensitive {
		if v.Kind() == reflect.String && !e.m.Key.IsZero() {
			e.member(f.name)
			e.token(f.name, v.String())
		}
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if t, ok := v.Interface().(time.Time); ok {
			e.member(f.name)
			e.out = append(e.out, '"')
			e.out = t.UTC().AppendFormat(e.out, time.RFC3339Nano)
			e.out = append(e.out, '"')
		}
	case reflect.Map:
		if d, ok := v.Interface().(map[string]string); ok {
			e.detail(f.name, d)
		}
	case reflect.String:
		e.member(f.name)
		e.text(v.String())
	case reflect.Bool:
		e.member(f.name)
		e.out = strconv.AppendBool(e.out, v.Bool())
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.member(f.name)
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
	default: // []byte, any, other structs, errors, functions: nobody said what is in there
	}
}

func (e *encoder) detail(name string, d map[string]string) {
	if e.noDetail {
		e.dropped += len(d)
		return
	}
	keys := make([]string, 0, len(d))
	for k := range d {
		if DetailClass(k) == "" || len(keys) == maxDetail {
			e.dropped++
			continue
		}
		keys = append(keys, k)
	}
	slices.Sort(keys)
	e.member(name)
	e.out = append(e.out, '{')
	for _, k := range keys {
		switch {
		case DetailClass(k) == "sensitive" && e.m.Key.IsZero():
		case e.m.Set.Column(k):
			e.member(k)
			e.out = append(append(append(e.out, '"'), mask.Masked...), '"')
		case DetailClass(k) == "sensitive":
			e.member(k)
			e.token(k, d[k])
		default:
			e.member(k)
			e.text(d[k])
		}
	}
	e.out = append(e.out, '}')
}

// member writes a name that stands in our own source: it needs no escape.
func (e *encoder) member(name string) {
	if e.out[len(e.out)-1] != '{' {
		e.out = append(e.out, ',')
	}
	e.out = append(e.out, '"')
	e.out = append(e.out, name...)
	e.out = append(e.out, '"', ':')
}

func (e *encoder) token(class, value string) {
	e.out = append(e.out, '"')
	e.out = e.m.tokens.Append(e.out, e.m.Key.Expose(), class, value)
	e.out = append(e.out, '"')
}

func (e *encoder) text(s string) {
	full := s
	s, _ = e.m.Set.Text(clipText(s, maxScanBytes))
	tail := ""
	if len(s) > e.limit || len(full) > maxScanBytes {
		s = clipText(s, e.limit)
		tail = fmt.Sprintf("…[%d bytes", len(full))
		if !e.m.Key.IsZero() { // an unkeyed digest would let a short secret be guessed
			tail += " " + string(e.m.tokens.Append(nil, e.m.Key.Expose(), "rest", full))
		}
		tail += "]"
	}
	e.out = append(e.out, '"')
	e.out = appendEscaped(e.out, s)
	e.out = append(e.out, tail...)
	e.out = append(e.out, '"')
}

// clipText cuts at n bytes or up to three before, never within a character.
func clipText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for i := 0; i < utf8.UTFMax && n-i > 0; i++ {
		if utf8.RuneStart(s[n-i]) {
			return s[:n-i]
		}
	}
	return s[:n]
}

const hexDigits = "0123456789abcdef"

// appendEscaped writes a JSON string's inside. What is not printable is escaped, so that no reader of logs is fooled by it.
func appendEscaped(out []byte, s string) []byte {
	if plainjson.Plain(s) {
		return append(out, s...)
	}
	for _, r := range s { // a byte that is not UTF-8 arrives as U+FFFD
		switch {
		case r == '"' || r == '\\':
			out = append(out, '\\', byte(r))
		case r == '<' || r == '>' || r == '&':
			out = appendU(out, r)
		case r >= ' ' && r < 0x7f:
			out = append(out, byte(r))
		case r == '\n':
			out = append(out, '\\', 'n')
		case r == '\r':
			out = append(out, '\\', 'r')
		case r == '\t':
			out = append(out, '\\', 't')
		case unicode.IsPrint(r):
			out = utf8.AppendRune(out, r)
		case r >= 0x10000:
			r -= 0x10000
			out = appendU(appendU(out, 0xd800+(r>>10)), 0xdc00+(r&0x3ff))
		default:
			out = appendU(out, r)
		}
	}
	return out
}

func appendU(out []byte, r rune) []byte {
	return append(out, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// NewMasker is a Masker with a token key and no masks.
func NewMasker(key secret.Bytes) *Masker { return &Masker{Key: key} }
