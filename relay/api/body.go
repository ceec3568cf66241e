package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// readJSON reads a JSON body strictly into v: at most limit bytes, no unknown and no doubled member, no depth beyond
// maxDepth, nothing behind the value. Errors name the place by JSON pointer (RFC 6901), never the value.
func readJSON(r *http.Request, limit int64, v any) error {
	b, err := readBody(r, limit)
	if err != nil {
		return err
	}
	if err := checkJSON(b); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		var te *json.UnmarshalTypeError
		switch {
		case errors.As(err, &te):
			return invalid(fmt.Sprintf("/%s: want %s, not a JSON %s", strings.ReplaceAll(te.Field, ".", "/"), jsonName(te.Type.Kind().String()), te.Value), "")
		case strings.HasPrefix(err.Error(), "json: unknown field "):
			return invalid("unknown member "+strings.TrimPrefix(err.Error(), "json: unknown field "), "see /api/v1/openapi.json for the members this route takes")
		}
		return invalid(fmt.Sprintf("the body is not the JSON that this route takes (near byte %d)", dec.InputOffset()), "")
	}
	return nil
}

// readBody reads a body of at most limit bytes.
func readBody(r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "the body broke off", Cause: err}
	}
	if int64(len(b)) > limit {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "the body is longer than %d bytes", limit)
	}
	return b, nil
}

func jsonName(kind string) string {
	switch kind {
	case "slice", "array":
		return "an array"
	case "struct", "map":
		return "an object"
	case "string":
		return "a string"
	case "bool":
		return "true or false"
	}
	return "a number"
}

// checkJSON refuses what encoding/json lets pass: doubled members, of which the last would win, and great depth.
func checkJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type level struct {
		object, value bool
		seen          map[string]bool
		key           string
		index         int
	}
	var stack []level
	pointer := func() string {
		var s strings.Builder
		for _, l := range stack {
			if l.object {
				s.WriteString("/" + l.key)
			} else {
				fmt.Fprintf(&s, "/%d", l.index)
			}
		}
		return s.String()
	}
	for n := 0; ; n++ {
		tok, err := dec.Token()
		if err == io.EOF && n > 0 && len(stack) == 0 {
			return nil
		}
		if err != nil {
			return invalid(fmt.Sprintf("the body is not well-formed JSON (near byte %d)", dec.InputOffset()), "")
		}
		if n > 0 && len(stack) == 0 {
			return invalid("the body goes on after its JSON value", "")
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		if d, ok := tok.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
			continue
		}
		if top != nil && top.object && !top.value {
			key := tok.(string)
			top.key = key
			// encoding/json takes "SQL" and "sql" for the same member: so do we.
			fold := strings.ToLower(strings.ToUpper(key))
			if top.seen[fold] {
				return invalid(pointer()+": stands twice", "write each member once")
			}
			top.seen[fold], top.value = true, true
			continue
		}
		if top != nil {
			top.value = false
			if !top.object {
				top.index++
			}
		}
		if d, ok := tok.(json.Delim); ok {
			if len(stack) >= maxDepth {
				return invalid(fmt.Sprintf("the body is nested deeper than %d", maxDepth), "")
			}
			stack = append(stack, level{object: d == '{', seen: map[string]bool{}, index: -1})
		}
	}
}
