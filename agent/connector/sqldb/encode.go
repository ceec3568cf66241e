package sqldb

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// plain holds the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := 0x20; c < utf8.RuneSelf; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString appends v as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString[S []byte | string](dst []byte, v S) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(v); {
		c := v[i]
		if plain[c] {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(string(v[i:min(i+utf8.UTFMax, len(v))]))
			if r != utf8.RuneError || n != 1 {
				i += n
				continue
			}
			dst = append(append(dst, v[from:i]...), `\ufffd`...)
			i++
			from = i
			continue
		}
		dst = append(dst, v[from:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, v[from:]...), '"')
}

// appendBytes appends v as a base64 string.
func appendBytes(dst, v []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, v)
	return append(dst, '"')
}

// appendFloat appends the shortest number that reads back as v; what JSON has no number for is a string, named as
// PostgreSQL names it.
func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	}
	if a := math.Abs(v); a != 0 && (a < 1e-5 || a >= 1e21) {
		return strconv.AppendFloat(dst, v, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, bits)
}

// isNumber reports whether v is a JSON number. Databases print floats so, but for NaN and infinities.
func isNumber(v []byte) bool {
	i := 0
	digits := func() bool {
		from := i
		for i < len(v) && v[i] >= '0' && v[i] <= '9' {
			i++
		}
		return i > from
	}
	if i < len(v) && v[i] == '-' {
		i++
	}
	if i < len(v) && v[i] == '0' {
		i++
	} else if !digits() {
		return false
	}
	if i < len(v) && v[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(v) && (v[i] == 'e' || v[i] == 'E') {
		i++
		if i < len(v) && (v[i] == '+' || v[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(v) && i > 0
}

// appendNumber appends v as a number where it is one, else as a string.
func appendNumber(dst, v []byte) []byte {
	if isNumber(v) {
		return append(dst, v...)
	}
	return appendString(dst, v)
}

// appendInt appends digits as they are; what is none is a string, for a server must not be able to write past its value.
func appendInt(dst, v []byte) []byte {
	for i, c := range v {
		if (c < '0' || c > '9') && (c != '-' || i > 0 || len(v) == 1) || c == '0' && len(v) > 1 && (i == 0 || i == 1 && v[0] == '-') {
			return appendString(dst, v)
		}
	}
	if len(v) == 0 {
		return append(dst, `""`...)
	}
	return append(dst, v...)
}

// appendJSON appends a JSON document; what is none is a string. It must stay on one line: between tokens a line break means no more than a space, and
// inside a string it cannot stand.
func appendJSON(dst, v []byte) []byte {
	if !json.Valid(v) {
		return appendString(dst, v)
	}
	from := len(dst)
	dst = append(dst, v...)
	for i := from; i < len(dst); i++ {
		if dst[i] == '\n' || dst[i] == '\r' {
			dst[i] = ' '
		}
	}
	return dst
}

// appendStamp appends "2006-01-02 15:04:05.999[+zone]" in the form of RFC 3339: a T between, the zone as Z or ±hh:mm. All
// digits stay. What has no such form (infinity, years BC) stays as the database prints it.
func appendStamp(dst, v []byte) []byte {
	sp := -1
	for i, c := range v {
		switch {
		case c == ' ' && sp < 0:
			sp = i
		case (c < '0' || c > '9') && c != '-' && c != ':' && c != '.' && c != '+':
			return appendString(dst, v)
		}
	}
	if sp < 8 || v[0] < '0' || v[0] > '9' || v[len(v)-1] < '0' || v[len(v)-1] > '9' {
		return appendString(dst, v)
	}
	dst = append(dst, '"')
	dst = append(dst, v[:sp]...)
	dst = append(dst, 'T')
	clock, zone := v[sp+1:], []byte(nil)
	for i, c := range clock {
		if c == '+' || c == '-' {
			clock, zone = clock[:i], clock[i:]
			break
		}
	}
	dst = append(dst, clock...)
	switch {
	case zone == nil:
	case string(zone) == "+00" || string(zone) == "+00:00":
		dst = append(dst, 'Z')
	case len(zone) == 3:
		dst = append(append(dst, zone...), ":00"...)
	default:
		dst = append(dst, zone...)
	}
	return append(dst, '"')
}
