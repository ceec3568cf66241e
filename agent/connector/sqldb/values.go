package sqldb

import (
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendValue writes a driver's value by the column's kind. It is what flavors fall back to.
func appendValue(dst []byte, c *genericColumn, v driver.Value) []byte {
	switch v := v.(type) {
	case int64:
		return strconv.AppendInt(dst, v, 10)
	case uint64:
		return strconv.AppendUint(dst, v, 10)
	case float64:
		return appendFloat(dst, v, 64)
	case float32:
		return appendFloat(dst, float64(v), 32)
	case bool:
		return strconv.AppendBool(dst, v)
	case []byte:
		if c.kind == kBytes || !utf8.Valid(v) && c.kind == kText {
			return appendBytes(dst, v)
		}
		return appendText(dst, c.kind, v)
	case string:
		return appendText(dst, c.kind, []byte(v))
	case time.Time:
		return appendTime(dst, c.kind, v)
	}
	return appendString(dst, fmt.Sprint(v))
}

// appendTime writes a point in time with all its digits.
func appendTime(dst []byte, k kind, t time.Time) []byte {
	layout := time.RFC3339Nano
	switch k {
	case kTimestamp:
		layout = "2006-01-02T15:04:05.999999999"
	case kDate:
		layout = "2006-01-02"
	case kTime:
		layout = "15:04:05.999999999"
	}
	dst = append(dst, '"')
	dst = t.AppendFormat(dst, layout)
	return append(dst, '"')
}

// driverText gives a value of one of our own catalog queries as text.
func driverText(v driver.Value) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return string(v)
	case string:
		return v
	}
	return fmt.Sprint(v)
}

func jsonString(b []byte) (string, error) {
	var s string
	err := json.Unmarshal(b, &s)
	return s, err
}

// named numbers values as the drivers want them.
func named(values []driver.Value) []driver.NamedValue {
	out := make([]driver.NamedValue, len(values))
	for i, v := range values {
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return out
}

// driverValue makes a driver's parameter of an argument. Numbers with a fraction are floats unless they are said to be
// decimals: those go as text, which the database converts exactly.
func driverValue(a arg) driver.Value {
	if a.null {
		return nil
	}
	typ := a.typ
	if typ == "" {
		typ = map[byte]string{'n': "number", 's': "text", 'b': "bool"}[a.json]
	}
	switch typ {
	case "bool":
		return a.text == "true"
	case "bytes":
		return []byte(a.text)
	case "int", "number":
		if n, err := strconv.ParseInt(a.text, 10, 64); err == nil {
			return n
		}
		if typ == "int" {
			return a.text
		}
		f, err := strconv.ParseFloat(a.text, 64)
		if err != nil {
			return a.text
		}
		return f
	case "float":
		if f, err := strconv.ParseFloat(a.text, 64); err == nil {
			return f
		}
	}
	return a.text
}
