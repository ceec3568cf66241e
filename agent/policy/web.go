package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fairleadhq/fairlead/protocol"
)

// methods that a rule can name. CONNECT and TRACE can never be allowed, nor methods of extensions.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

type web struct {
	rule   rule
	rules  []webRule
	limits Limits
	target *target
	denied *target
}

type webRule struct {
	rule     rule
	methods  []string
	segments []string
}

func (k *compiler) web(name string, c HTTP) {
	path := k.profile(protocol.KindHTTP, name)
	w := &web{rule: k.rule(path + ".allow"), limits: Limits{MaxBytes: c.MaxBytes, MaxSize: c.MaxSize, Timeout: c.Timeout}}
	if c.MaxBytes < 0 || c.MaxSize < 0 || c.Timeout < 0 {
		k.fault(path, "a limit is negative", "")
	}
	w.target = k.endpoint(path+".base_url", c.Host, c.Port)
	w.denied = k.denies(w.target)
	for i, r := range c.Allow {
		at := fmt.Sprintf("%s.allow[%d]", path, i)
		wr := webRule{rule: k.rule(at), methods: r.Methods}
		if len(r.Methods) == 0 {
			k.fault(at+".methods", "methods are missing", "such as methods: [GET]")
		}
		for j, m := range r.Methods {
			if !slices.Contains(methods, m) {
				k.fault(fmt.Sprintf("%s.methods[%d]", at, j), fmt.Sprintf("method %q cannot be allowed", m), "one of: "+strings.Join(methods, ", "))
			}
		}
		if slices.Contains(wr.methods, "GET") { // HEAD tells less than GET does (RFC 9110, 9.3.2)
			wr.methods = append(slices.Clone(wr.methods), "HEAD")
		}
		var err error
		if wr.segments, err = pathPattern(r.Path); err != nil {
			k.fault(at+".path", err.Error(), "such as /api/v1/customers/* or /api/**")
		}
		w.rules = append(w.rules, wr)
	}
	k.p.http[name] = w
}

func pathPattern(p string) ([]string, error) {
	if !strings.HasPrefix(p, "/") || strings.ContainsAny(p, "?#") {
		return nil, errors.New("a path pattern begins with / and has no ? or #")
	}
	segments := strings.Split(p[1:], "/")
	for i, s := range segments {
		switch {
		case s == "**" && i < len(segments)-1:
			return nil, errors.New("** stands for all that follows, so it must be last")
		case s == "*" || s == "**":
		case strings.Contains(s, "*"):
			return nil, errors.New("* stands for a whole segment")
		case s == "" && i < len(segments)-1:
			return nil, errors.New("path pattern has an empty segment")
		case s == "." || s == ".." || strings.ContainsAny(s, "\\%;") || !utf8.ValidString(s) || hasControl(s):
			return nil, errors.New(`path pattern has a dot segment, backslash, "%", ";" or control character; write segments decoded`)
		}
	}
	return segments, nil
}

func (p *Policy) decideRequest(r *protocol.Request) Decision {
	w := p.http[r.Profile]
	target, segments, err := HTTPPath(r.Target)
	method := r.Method
	if !slices.Contains(methods, method) {
		method = "this method"
	}
	switch {
	case w == nil:
		return notAllowed(r.Kind, r.Profile, method, 0)
	case w.denied != nil:
		return deny(w.denied.rule, protocol.CodeDenied, deniedTarget, deniedHint)
	case err != nil:
		return deny(w.rule, protocol.CodeInvalid, err.Error(), "send the path in its plain, normalised form")
	}
	for _, wr := range w.rules {
		if slices.Contains(wr.methods, r.Method) && matchSegments(wr.segments, segments) {
			d := allow(wr.rule)
			d.Limits, d.Target = w.limits, target
			return d
		}
	}
	return notAllowed(r.Kind, r.Profile, method, w.rule.line)
}

func matchSegments(pattern, segments []string) bool {
	for i, want := range pattern {
		if want == "**" {
			return true
		}
		if i >= len(segments) || want == "*" && segments[i] == "" || want != "*" && want != segments[i] {
			return false
		}
	}
	return len(pattern) == len(segments)
}

// HTTPPath checks the path and query of a request to an http profile and returns it with the decoded segments of the path.
// It refuses rather than repairs whatever two servers might read as two paths: dot segments (also escaped, and before a
// ";"), empty segments except one at the end, backslashes and slashes in escapes, escapes of escapes (%25 and two hex
// digits), control characters, invalid UTF-8, characters that RFC 3986 does not have in a path, fragments. The accepted form
// is passed on as it came.
func HTTPPath(target string) (clean string, segments []string, err error) {
	path, query, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(path, "/") {
		return "", nil, errors.New("the path must begin with /")
	}
	for i := 0; i < len(query); i++ {
		if query[i] <= ' ' || query[i] >= 0x7f || query[i] == '#' || query[i] == '\\' {
			return "", nil, errors.New("the query has a character that must be escaped")
		}
	}
	raw := strings.Split(path[1:], "/")
	segments = make([]string, len(raw))
	for i, s := range raw {
		d, err := decodeSegment(s)
		if err != nil {
			return "", nil, err
		}
		if s == "" && i < len(raw)-1 {
			return "", nil, errors.New("the path has an empty segment (//)")
		}
		name, _, params := strings.Cut(d, ";") // some servers cut ";…" off before they look for dots
		if name == "." || name == ".." || params && name == "" {
			return "", nil, errors.New("the path has a dot segment")
		}
		segments[i] = d
	}
	return target, segments, nil
}

func decodeSegment(s string) (string, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '%' {
			// pchar of RFC 3986, 3.3
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@", c) >= 0) {
				return "", errors.New("the path has a character that must be escaped")
			}
			out = append(out, c)
			continue
		}
		if i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2]) {
			return "", errors.New("the path has a malformed escape")
		}
		v := unhex(s[i+1])<<4 | unhex(s[i+2])
		switch {
		case v == '/' || v == '\\':
			return "", errors.New("the path has an escaped slash or backslash")
		case v == '%' && i+4 < len(s) && isHex(s[i+3]) && isHex(s[i+4]):
			return "", errors.New("the path has an escape of an escape")
		}
		out = append(out, v)
		i += 2
	}
	d := string(out)
	if !utf8.ValidString(d) {
		return "", errors.New("the path is not valid UTF-8")
	}
	if hasControl(d) {
		return "", errors.New("the path has a control character")
	}
	return d, nil
}

func hasControl(s string) bool {
	for _, c := range s {
		if c < 0x20 || c >= 0x7f && c <= 0x9f {
			return true
		}
	}
	return false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
