package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits on a file.
const (
	MaxBytes  = 1 << 20
	MaxDepth  = 64
	MaxValues = 100_000 // lines and commas together: a tree takes hundreds of bytes for each
)

// Document is a YAML file that was read and found sound in form; Decode fills a struct from it.
type Document struct {
	file string
	root *yaml.Node
	at   map[string]Pos
}

// Pos is a place in a file, from 1; zero means unknown.
type Pos struct{ Line, Col int }

// Decode reads strict YAML into v, a pointer to a struct with yaml tags, over what v holds already (its defaults). The
// error is Faults. See Document.Decode for what a struct may hold.
func Decode(file string, data []byte, v any) error {
	d, err := Parse(file, data)
	if err != nil {
		return err
	}
	return d.Decode(v)
}

// Parse reads data as one YAML document and refuses, as Faults, what no file of ours may hold: more than MaxBytes,
// MaxValues or MaxDepth levels, aliases, anchors, merge keys, tags, doubled keys, tabs as indentation, further documents.
func Parse(file string, data []byte) (*Document, error) {
	one := func(line, col int, msg, hint string) (*Document, error) {
		return nil, Faults{{File: file, Line: line, Col: col, Message: msg, Hint: hint}}
	}
	if len(data) > MaxBytes {
		return one(0, 0, fmt.Sprintf("file has more than %d bytes", MaxBytes), "")
	}
	if bytes.Count(data, []byte("\n"))+bytes.Count(data, []byte(",")) > MaxValues {
		return one(0, 0, fmt.Sprintf("file has more than %d values", MaxValues), "")
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // Notepad's byte-order mark
	for i, line := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(line) {
			return one(i+1, 1, "not valid UTF-8", "save the file as UTF-8")
		}
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		if n := bytes.IndexByte(indent, '\t'); n >= 0 && len(indent) < len(line) {
			return one(i+1, n+1, "tab in the indentation", "use spaces")
		}
	}
	if n, line := flowDepth(data); n > MaxDepth {
		return one(line, 1, fmt.Sprintf("nested deeper than %d levels", MaxDepth), "")
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var root yaml.Node
	if err := dec.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return one(1, 1, "file is empty", "see the sample agent.yaml")
		}
		line, msg := syntaxError(err)
		return one(line, 0, msg, "")
	}
	var next yaml.Node
	if err := dec.Decode(&next); err == nil {
		return one(next.Line, next.Column, "second document in the file", "one file holds one document; remove what follows ---")
	} else if !errors.Is(err, io.EOF) {
		line, msg := syntaxError(err)
		return one(line, 0, msg, "")
	}
	d := &Document{file: file, root: root.Content[0], at: map[string]Pos{}}
	w := walker{d: d}
	w.walk(d.root, "", 1)
	if err := w.faults.Err(); err != nil {
		return nil, err
	}
	return d, nil
}

// flowDepth counts the deepest nesting of brackets before the parser builds a tree of it. Brackets in text count too,
// which errs by far less than MaxDepth in any real file since each line starts anew unless brackets stay open.
func flowDepth(data []byte) (deepest, line int) {
	depth, at, quote := 0, 1, byte(0)
	for i, c := range data {
		switch {
		case c == '\n':
			at++
			quote = 0
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case (c == '"' || c == '\'') && (i == 0 || strings.IndexByte(" [{,:\n", data[i-1]) >= 0):
			quote = c
		case c == '[' || c == '{':
			if depth++; depth > deepest {
				deepest, line = depth, at
			}
		case (c == ']' || c == '}') && depth > 0:
			depth--
		}
	}
	return deepest, line
}

// syntaxError takes the line out of yaml's own text ("yaml: line 3: …").
func syntaxError(err error) (int, string) {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(msg, "line "); ok {
		if n, text, ok := strings.Cut(rest, ": "); ok {
			if v, err := strconv.Atoi(n); err == nil {
				line, msg = v, text
			}
		}
	}
	if strings.Contains(msg, "unknown anchor") { // the message repeats it, and it may be a password that begins with *
		msg = "an alias (*) of what has no anchor (&); put text that begins with * in quotes"
	}
	return line, "not valid YAML: " + msg
}

// walker checks the form of the tree and notes where each path stands.
type walker struct {
	d      *Document
	faults Faults
}

func (w *walker) fault(n *yaml.Node, path, msg, hint string) {
	if len(w.faults) < maxFaults {
		w.faults = append(w.faults, Fault{File: w.d.file, Line: n.Line, Col: n.Column, Path: path, Message: msg, Hint: hint})
	}
}

func (w *walker) walk(n *yaml.Node, path string, depth int) {
	if depth > MaxDepth {
		w.fault(n, "", fmt.Sprintf("nested deeper than %d levels", MaxDepth), "")
		return
	}
	if n.Anchor != "" {
		w.fault(n, path, "anchors (&name) are not supported", "write the value out at each place")
	}
	if n.Style&yaml.TaggedStyle != 0 {
		w.fault(n, path, "tags (!name) are not supported", "remove the tag")
	}
	w.d.at[path] = Pos{n.Line, n.Column}
	switch n.Kind {
	case yaml.AliasNode:
		w.fault(n, path, "aliases (*name) are not supported", "write the value out, or put it in quotes if it begins with *")
	case yaml.SequenceNode:
		for i, item := range n.Content {
			w.walk(item, Index(path, i), depth+1)
		}
	case yaml.MappingNode:
		seen := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if k.Kind != yaml.ScalarNode {
				w.fault(k, path, "a key must be plain text", "")
				continue
			}
			sub := Join(path, k.Value)
			if k.Tag == "!!merge" {
				w.fault(k, path, "merge keys (<<) are not supported", "write the values out")
				continue
			}
			if k.Anchor != "" || k.Style&yaml.TaggedStyle != 0 {
				w.fault(k, sub, "anchors and tags are not supported", "")
			}
			if first, dup := seen[k.Value]; dup {
				w.fault(k, sub, fmt.Sprintf("key %q stands twice (first on line %d)", clip(k.Value), first), "remove one")
				continue
			}
			seen[k.Value] = k.Line
			w.walk(v, sub, depth+1)
			w.d.at[sub] = Pos{k.Line, k.Column} // a key's own place says more than its block's first line
		}
	}
}

// At returns where a YAML path stands; for a path that is not in the file, its nearest parent's place.
func (d *Document) At(path string) Pos {
	for {
		if p, ok := d.at[path]; ok {
			return p
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return d.at[""]
		}
		path = path[:i]
	}
}

// Has reports whether the file itself holds a value at the path.
func (d *Document) Has(path string) bool {
	_, ok := d.at[path]
	return ok
}

// Fault makes a Fault for a path, for checks that come after Decode.
func (d *Document) Fault(path, msg, hint string) Fault {
	p := d.At(path)
	return Fault{File: d.file, Line: p.Line, Col: p.Col, Path: path, Message: msg, Hint: hint}
}

// File is the name that was given to Parse.
func (d *Document) File() string { return d.file }

// Decode fills v, a pointer to a struct, from the document. Fields take their key from the yaml tag; "-" or no tag means
// that no key reaches the field. Known are string, bool, int, int64, uint16, structs, pointers to structs, slices, maps
// with text keys, SecretRef (which also takes the key with "_file" added), and any type whose pointer is an
// encoding.TextUnmarshaler, from a scalar. An `enum:"a,b"` tag on a field limits a string, or the strings of a list.
// The error is Faults; v must not be used then.
func (d *Document) Decode(v any) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.Elem().Kind() != reflect.Struct {
		panic("config: Decode wants a pointer to a struct")
	}
	dec := decoder{walker{d: d}}
	dec.value(d.root, "", rv.Elem(), "")
	return dec.faults.Err()
}

type decoder struct{ walker }

var (
	secretRefType = reflect.TypeFor[SecretRef]()
	textType      = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (d *decoder) value(n *yaml.Node, path string, v reflect.Value, enum string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.fault(n, path, "value is missing", "give it a value or remove the key")
		return
	}
	if v.CanAddr() && v.Addr().Type().Implements(textType) {
		if n.Kind != yaml.ScalarNode {
			d.fault(n, path, "wants one value, not "+kindName(n), "")
		} else if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
			d.fault(n, path, err.Error(), "")
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, path, v.Elem(), enum)
	case reflect.Struct:
		d.object(n, path, v)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			d.fault(n, path, "wants names with settings below them, not "+kindName(n), "")
			return
		}
		out := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			item := reflect.New(v.Type().Elem()).Elem()
			if def, ok := item.Addr().Interface().(interface{ SetDefaults() }); ok {
				def.SetDefaults()
			}
			d.value(n.Content[i+1], Join(path, n.Content[i].Value), item, enum)
			out.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key()), item)
		}
		v.Set(out)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.fault(n, path, "wants a list, not "+kindName(n), "write ["+clip(n.Value)+"]")
			return
		}
		out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, item := range n.Content {
			if def, ok := out.Index(i).Addr().Interface().(interface{ SetDefaults() }); ok {
				def.SetDefaults()
			}
			d.value(item, Index(path, i), out.Index(i), enum)
		}
		v.Set(out)
	default:
		d.scalar(n, path, v, enum)
	}
}

func (d *decoder) object(n *yaml.Node, path string, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.fault(n, path, "wants settings (key: value), not "+kindName(n), "")
		return
	}
	fields := map[string]reflect.StructField{}
	var names []string
	for _, f := range reflect.VisibleFields(v.Type()) {
		key := f.Tag.Get("yaml")
		if key == "" || key == "-" || !f.IsExported() {
			continue
		}
		fields[key] = f
		names = append(names, key)
		if f.Type == secretRefType {
			fields[key+"_file"] = f
			names = append(names, key+"_file")
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if len(d.faults) >= maxFaults {
			return // the search for near names is the dear part of a long file of nonsense
		}
		k, val := n.Content[i], n.Content[i+1]
		f, ok := fields[k.Value]
		sub := Join(path, k.Value)
		if !ok {
			hint := "valid here: " + strings.Join(names, ", ")
			if near := Nearest(k.Value, names); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			d.fault(k, sub, fmt.Sprintf("unknown key %q", clip(k.Value)), hint)
			continue
		}
		fv := v.FieldByIndex(f.Index)
		if f.Type == secretRefType {
			d.secret(k, val, sub, fv.Addr().Interface().(*SecretRef), f.Tag.Get("yaml"))
			continue
		}
		d.value(val, sub, fv, f.Tag.Get("enum"))
	}
}

func (d *decoder) scalar(n *yaml.Node, path string, v reflect.Value, enum string) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, path, "wants one value, not "+kindName(n), "")
		return
	}
	quoted := n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0
	switch v.Kind() {
	case reflect.String:
		if n.Tag != "!!str" {
			d.fault(n, path, "wants text", fmt.Sprintf("put it in quotes: %q", clip(n.Value)))
			return
		}
		if strings.ContainsRune(n.Value, 0) {
			d.fault(n, path, "NUL character in text", "")
			return
		}
		if enum != "" {
			choices := strings.Split(enum, ",")
			if !contains(choices, n.Value) {
				hint := "one of: " + strings.Join(choices, ", ")
				if near := Nearest(n.Value, choices); near != "" {
					hint = fmt.Sprintf("did you mean %q? (%s)", near, hint)
				}
				d.fault(n, path, fmt.Sprintf("%q is not known here", clip(n.Value)), hint)
				return
			}
		}
		v.SetString(n.Value)
	case reflect.Bool:
		if quoted || n.Value != "true" && n.Value != "false" {
			d.fault(n, path, fmt.Sprintf("wants true or false, not %q", clip(n.Value)), "")
			return
		}
		v.SetBool(n.Value == "true")
	case reflect.Int, reflect.Int64, reflect.Uint16:
		num, ok := wholeNumber(n.Value)
		if quoted || !ok {
			d.fault(n, path, fmt.Sprintf("wants a whole number, not %q", clip(n.Value)), "digits only, no leading zero, sign or quotes")
			return
		}
		if v.Kind() == reflect.Uint16 {
			if num > 65535 {
				d.fault(n, path, fmt.Sprintf("%d is more than 65535", num), "")
				return
			}
			v.SetUint(uint64(num))
			return
		}
		v.SetInt(num)
	default:
		panic("config: no rule to decode " + v.Type().String())
	}
}

// wholeNumber reads plain decimal digits: YAML itself would take 0x10, 010, 1_000 and +1 as well.
func wholeNumber(s string) (int64, bool) {
	if s == "" || len(s) > 18 || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

func kindName(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "settings (key: value)"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

// clip shortens text of the file before it stands in a message.
func clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "..."
	}
	return s
}
