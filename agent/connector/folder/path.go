package folder

import (
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// maxDepth is how many folders deep a path, a listing or a sweep goes.
const maxDepth = 128

// reservedPrefix begins the names of temporary files. Nobody lists, reads, writes or matches such a name.
const reservedPrefix = ".fairlead-"

func reserved(name string) bool {
	return len(name) >= len(reservedPrefix) && strings.EqualFold(name[:len(reservedPrefix)], reservedPrefix)
}

// split checks a path of the wire again, as the policy did, and takes it apart. The base itself is "" and gives no
// components.
func split(p string) ([]string, error) {
	p, err := policy.CleanPath(p)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: err.Error(),
			Hint: `paths are relative to the profile's folder, with "/" between the parts, for example reports/2026/may.csv`}
	}
	if p == "" {
		return nil, nil
	}
	parts := strings.Split(p, "/")
	if len(parts) > maxDepth {
		return nil, protocol.Errorf(protocol.CodeInvalid, "the path has more than %d parts", maxDepth)
	}
	if slices.ContainsFunc(parts, reserved) {
		return nil, denied("names that begin with " + reservedPrefix + " belong to the agent")
	}
	return parts, nil
}

// unprintable reports the characters that could break a line, move a cursor or turn the reading direction.
func unprintable(c rune) bool {
	switch {
	case unicode.IsControl(c), c == '\u2028', c == '\u2029', c == '\u061c', c == '\u200e', c == '\u200f':
		return true
	}
	return c >= '\u202a' && c <= '\u202e' || c >= '\u2066' && c <= '\u2069'
}

// display makes a name of the disk safe to show. A name that needs an escape also gets its backslashes doubled; no such
// name can be asked for, since a path with a backslash is refused.
func display(name string) string {
	plain := utf8.ValidString(name)
	for _, c := range name {
		plain = plain && !unprintable(c) && c != '\\'
	}
	if plain {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); {
		c, n := utf8.DecodeRuneInString(name[i:])
		switch {
		case c == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(name[i])|0x100, 16)[1:])
		case c == '\\':
			b.WriteString(`\\`)
		case unprintable(c):
			b.WriteString(`\u` + strconv.FormatUint(uint64(c)|0x10000, 16)[1:])
		default:
			b.WriteRune(c)
		}
		i += n
	}
	return b.String()
}

func join(folder, name string) string {
	if folder == "" {
		return name
	}
	return folder + "/" + name
}

// glob is a compiled pattern of a listing. A pattern without a slash is matched against the name alone; one with a slash
// against the path below the listed folder, where "**" stands for any number of folders.
type glob struct {
	parts []string
	name  bool
}

func compileGlob(s string) (*glob, error) {
	if s == "" {
		return nil, nil
	}
	g := &glob{parts: strings.Split(s, "/"), name: !strings.Contains(s, "/")}
	bad := len(s) > 1024 || len(g.parts) > 32
	for _, p := range g.parts {
		_, err := path.Match(p, "")
		bad = bad || p == "" || err != nil
	}
	if bad {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: "the glob is malformed",
			Hint: "* stands for any characters, ? for one, [a-z] for a class, ** for any folders; at most 1024 bytes and 32 parts"}
	}
	return g, nil
}

// match takes a path relative to the listed folder. nil matches all.
func (g *glob) match(rel string) bool {
	if g == nil {
		return true
	}
	if g.name {
		ok, _ := path.Match(g.parts[0], path.Base(rel))
		return ok || g.parts[0] == "**"
	}
	// One row of a table: reach[i] says that the first i parts of the pattern match the path so far. No backtracking.
	reach := make([]bool, len(g.parts)+1)
	reach[0] = true
	g.skip(reach)
	for _, name := range strings.Split(rel, "/") {
		next := make([]bool, len(g.parts)+1)
		for i, p := range g.parts {
			if !reach[i] {
				continue
			}
			if p == "**" {
				next[i] = true
			} else if ok, _ := path.Match(p, name); ok {
				next[i+1] = true
			}
		}
		reach = next
		g.skip(reach)
	}
	return reach[len(g.parts)]
}

// skip lets "**" match no folder at all.
func (g *glob) skip(reach []bool) {
	for i, p := range g.parts {
		if reach[i] && p == "**" {
			reach[i+1] = true
		}
	}
}
