package policy

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// Limits on a path, as file systems have them.
const (
	maxPath      = 4096
	maxComponent = 255
)

// CleanPath checks a path of a files profile and returns it in its one canonical form: names with single slashes between
// them, relative to the profile's base; "" is the base. It refuses rather than repairs, and alike on every platform, so
// that a path means the same everywhere: "." and "..", absolute paths, empty names (so a slash at the end too), backslashes,
// drive letters and streams (":"), * ? " < > |, control characters, invalid UTF-8, names that end in a dot or space, names of
// Windows devices, 8.3 short names, escapes of dots and slashes (%2e, %2f, %5c, %00, %25…), more than 4096 bytes, names over
// 255 bytes. The result is unchanged by a second CleanPath.
func CleanPath(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	if len(p) > maxPath {
		return "", fmt.Errorf("the path is longer than %d bytes", maxPath)
	}
	if !utf8.ValidString(p) {
		return "", errors.New("the path is not valid UTF-8")
	}
	if p[0] == '/' {
		return "", errors.New("the path is absolute")
	}
	for _, c := range p {
		if c < 0x20 || c >= 0x7f && c <= 0x9f || c == '\u2028' || c == '\u2029' {
			return "", errors.New("the path has a control character")
		}
	}
	if i := strings.IndexAny(p, `\:*?"<>|`); i >= 0 {
		return "", fmt.Errorf("the path has the character %q", p[i])
	}
	for _, name := range strings.Split(p, "/") {
		if err := checkName(name); err != nil {
			return "", err
		}
	}
	return p, nil
}

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the path has an empty name (two slashes, or one at the end)")
	case len(name) > maxComponent:
		return fmt.Errorf("the path has a name longer than %d bytes", maxComponent)
	case name == "." || name == "..":
		return errors.New(`the path has "." or ".."`)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return errors.New("the path has a name that ends in a dot or space")
	case deviceName(name):
		return errors.New("the path has the name of a Windows device")
	case shortName(name):
		return errors.New("the path has a name of the form that Windows gives to short aliases (PROGRA~1)")
	}
	for i := 0; i+2 < len(name); i++ {
		if name[i] == '%' {
			switch strings.ToLower(name[i+1 : i+3]) {
			case "2e", "2f", "5c", "00", "25", "3a":
				return errors.New("the path has an escaped dot, slash or percent sign")
			}
		}
	}
	return nil
}

// deviceName reports whether Windows would open a device: the part before the first dot counts, without spaces at its end.
func deviceName(name string) bool {
	base, _, _ := strings.Cut(name, ".")
	base = strings.ToUpper(strings.TrimRight(base, " "))
	switch base {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$":
		return true
	}
	if port, ok := strings.CutPrefix(base, "COM"); ok {
		return portDigit(port)
	}
	port, ok := strings.CutPrefix(base, "LPT")
	return ok && portDigit(port)
}

func portDigit(s string) bool {
	return len(s) == 1 && s[0] >= '0' && s[0] <= '9' || s == "¹" || s == "²" || s == "³"
}

// shortName reports whether name looks like an 8.3 alias: up to eight characters that end in ~ and digits, and an
// extension of up to three. An alias would slip past match patterns: REPORT~1.CSV may stand for "report.csv.bak".
func shortName(name string) bool {
	base, ext, _ := strings.Cut(name, ".")
	i := strings.LastIndexByte(base, '~')
	if i < 1 || len(base) > 8 || len(ext) > 3 || i == len(base)-1 {
		return false
	}
	return strings.Trim(base[i+1:], "0123456789") == ""
}

// Globs matches paths by components: "*", "?" and "[a-z]" within a name, "**" for any number of names. Case counts. A nil
// Globs admits everything.
type Globs struct{ patterns [][]string }

func newGlobs(patterns []string) *Globs {
	g := &Globs{}
	for _, p := range patterns {
		g.patterns = append(g.patterns, strings.Split(p, "/"))
	}
	return g
}

func checkGlob(p string) error {
	if p == "" || len(p) > maxPath || !utf8.ValidString(p) || strings.ContainsAny(p, "\\\x00") {
		return errors.New("pattern is empty, too long, or has a backslash or NUL")
	}
	doubles := 0
	for _, c := range strings.Split(p, "/") {
		if c == "**" {
			doubles++
			continue
		}
		if c == "" || c == "." || c == ".." {
			return errors.New(`pattern has an empty name, "." or ".."; it is relative to the base`)
		}
		if strings.Contains(c, "**") {
			return errors.New("** must stand alone between slashes")
		}
		if _, err := path.Match(c, "x"); err != nil {
			return errors.New("pattern is malformed: unclosed [")
		}
	}
	if doubles > 4 { // each one multiplies the work of a match
		return errors.New("pattern has more than four **")
	}
	return nil
}

// File reports whether a file at the cleaned path matches.
func (g *Globs) File(p string) bool { return g.match(p, false) }

// Folder reports whether a folder at the cleaned path matches or can hold matches. The base always does.
func (g *Globs) Folder(p string) bool { return p == "" || g.match(p, true) }

func (g *Globs) match(p string, folder bool) bool {
	if g == nil {
		return true
	}
	var names []string
	if p != "" {
		names = strings.Split(p, "/")
	}
	for _, pattern := range g.patterns {
		if matchNames(pattern, names, folder) {
			return true
		}
	}
	return false
}

func matchNames(pattern, names []string, folder bool) bool {
	for len(pattern) > 0 {
		if pattern[0] == "**" {
			if folder {
				return true
			}
			for i := 0; i <= len(names); i++ {
				if matchNames(pattern[1:], names[i:], folder) {
					return true
				}
			}
			return false
		}
		if len(names) == 0 {
			return folder
		}
		if ok, err := path.Match(pattern[0], names[0]); !ok || err != nil {
			return false
		}
		pattern, names = pattern[1:], names[1:]
	}
	return len(names) == 0
}

// Match is File or Folder, for walks over folders.
func (g *Globs) Match(p string, folder bool) bool {
	if folder {
		return g.Folder(p)
	}
	return g.File(p)
}
