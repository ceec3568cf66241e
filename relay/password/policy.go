package password

import (
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/secure/precis"

	"github.com/fairleadhq/fairlead/protocol"
)

// Limits.
const (
	MinLength    = 15   // characters, where the password stands alone
	MinWithCode  = 8    // where a second factor must stand beside it, and the least that may be set
	MaxMinLength = 64   // what a workspace may demand at most
	MaxBytes     = 1024 // of a password; more is refused, never cut
	MaxHistory   = 10   // each costs a slow hash
	MaxAgeDays   = 3650
)

// Policy is what a workspace demands. The zero value demands what NIST SP 800-63B-4 does.
type Policy struct {
	MinLength  int `json:"min_length,omitempty"`   // characters; 0: 15, or 8 where the second factor is demanded
	Classes    int `json:"classes,omitempty"`      // how many of: lower case, upper case, digits, others; 0 or 1: no matter
	MaxAgeDays int `json:"max_age_days,omitempty"` // 0: it does not expire
	History    int `json:"history,omitempty"`      // earlier passwords that may not come back; the present one never may
}

// Check names the first field that is out of range, and what it may be.
func (p Policy) Check() (field, want string) {
	switch {
	case p.MinLength != 0 && (p.MinLength < MinWithCode || p.MinLength > MaxMinLength):
		return "min_length", fmt.Sprintf("%d to %d, or 0 for the default", MinWithCode, MaxMinLength)
	case p.Classes < 0 || p.Classes > 4:
		return "classes", "0 to 4"
	case p.MaxAgeDays < 0 || p.MaxAgeDays > MaxAgeDays:
		return "max_age_days", fmt.Sprintf("0 to %d", MaxAgeDays)
	case p.History < 0 || p.History > MaxHistory:
		return "history", fmt.Sprintf("0 to %d", MaxHistory)
	}
	return "", ""
}

// Least is the number of characters that a password must have.
func (p Policy) Least(secondFactor bool) int {
	switch {
	case p.MinLength != 0:
		return p.MinLength
	case secondFactor:
		return MinWithCode
	}
	return MinLength
}

// Normal gives a password the one form that is hashed (RFC 8265, OpaqueString): however a keyboard composes a character, it is
// the same. It refuses what is empty, too long, not UTF-8, or has control characters in it.
func Normal(text string) (string, error) {
	if len(text) > MaxBytes {
		return "", invalid(fmt.Sprintf("the password is longer than %d bytes", MaxBytes), "choose a shorter one")
	}
	out, err := precis.OpaqueString.String(text)
	if err != nil || out == "" || len(out) > MaxBytes || !utf8.ValidString(text) {
		return "", invalid("the password is empty, or has characters in it that cannot be typed everywhere", "use letters, digits, signs and blanks")
	}
	return out, nil
}

// The list is that of zxcvbn 4.4.2 (common.LICENSE.txt), of which what is shorter than MinWithCode says nothing here.
//
//go:embed common.txt
var commonText string

// common are the passwords of eight and more characters that are tried first, in small letters.
var common = sync.OnceValue(func() map[string]struct{} {
	m := make(map[string]struct{}, 12_000)
	for line := range strings.Lines(commonText) {
		m[strings.TrimSuffix(line, "\n")] = struct{}{}
	}
	return m
})

// Judge refuses a password, in its normal form, that the policy does not admit. leaked may be nil.
func (p Policy) Judge(normal, user string, secondFactor bool, leaked *Leaked) error {
	if n, least := utf8.RuneCountInString(normal), p.Least(secondFactor); n < least {
		return invalid(fmt.Sprintf("the password has fewer than %d characters", least), "several words in a row make a good one")
	}
	if p.Classes > 1 && classes(normal) < p.Classes {
		return invalid(fmt.Sprintf("the password has fewer than %d of: small letters, capital letters, digits, other characters", p.Classes), "the workspace demands them")
	}
	low := strings.ToLower(normal)
	if name, _, _ := strings.Cut(strings.ToLower(user), "@"); len(name) >= 3 && strings.Contains(low, name) {
		return invalid("the user's name stands in the password", "choose one without it")
	}
	unit := period(low)
	if _, ok := common()[low]; ok || len(unit) < len(low) && (utf8.RuneCountInString(unit) < MinWithCode || has(unit)) || run(low) {
		return invalid("the password is one of those that are tried first", "choose one that nobody else has: several words in a row, or what a password manager makes")
	}
	in, err := leaked.Has(normal)
	if err != nil {
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: "the list of leaked passwords cannot be read, so no password is taken",
			Hint: "the relay's operator should look at sign_in.leaked_passwords in relay.yaml", Cause: err}
	}
	if in {
		return invalid("the password stands in a list of leaked passwords", "choose another, and change it wherever else you use it")
	}
	return nil
}

func has(s string) bool { _, ok := common()[s]; return ok }

// period is the shortest text whose repetition is s; s itself when there is none.
func period(s string) string {
	for n := 1; n <= len(s)/2; n++ {
		if len(s)%n == 0 && strings.Repeat(s[:n], len(s)/n) == s {
			return s[:n]
		}
	}
	return s
}

// run reports whether each character follows the one before, up or down: abcdefgh, 87654321.
func run(s string) bool {
	r := []rune(s)
	if len(r) < 2 || r[1]-r[0] != 1 && r[1]-r[0] != -1 {
		return false
	}
	for i := 1; i < len(r); i++ {
		if r[i]-r[i-1] != r[1]-r[0] {
			return false
		}
	}
	return true
}

func classes(s string) int {
	var lower, upper, digit, other int
	for _, r := range s {
		switch {
		case unicode.IsLower(r):
			lower = 1
		case unicode.IsUpper(r):
			upper = 1
		case unicode.IsDigit(r):
			digit = 1
		default:
			other = 1
		}
	}
	return lower + upper + digit + other
}

func invalid(message, hint string) error {
	return &protocol.Error{Code: protocol.CodeInvalid, Message: message, Hint: hint}
}
