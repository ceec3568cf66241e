package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6238's default, and the only one that every app knows; HMAC does not rest on collisions
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
)

const (
	// Digits of a code.
	Digits = 6
	// Step is how long a code stands.
	Step = 30 * time.Second
	// Skew is how many steps a code may be off on either side, for clocks that differ.
	Skew = 1

	secretSize = 20 // RFC 4226, section 4, R6: 160 bits
)

// NewSecret makes a secret.
func NewSecret() secret.Bytes {
	b := make([]byte, secretSize)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return secret.New(b)
}

// StepAt is the number of the step that a time stands in.
func StepAt(t time.Time) int64 { return t.Unix() / int64(Step/time.Second) }

// Code is the code of a step.
func Code(s secret.Bytes, step int64) string {
	return fmt.Sprintf("%0*d", Digits, truncated(s, step)%1_000_000)
}

// truncated is the number that RFC 4226, section 5.3, cuts out of the HMAC.
func truncated(s secret.Bytes, step int64) uint32 {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step))
	m := hmac.New(sha1.New, s.Expose())
	m.Write(counter[:])
	sum := m.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	return binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
}

// Match finds the step that a code is good for at a time: one that is not more than Skew away and comes after last, the step
// that was accepted last. Whoever gets a step must keep it as the new last before anything is done on its strength.
func Match(s secret.Bytes, code string, at time.Time, last int64) (step int64, ok bool) {
	if s.IsZero() || len(code) != Digits {
		return 0, false
	}
	now := StepAt(at)
	for n := now - Skew; n <= now+Skew; n++ {
		// All are compared, so that the time tells nothing.
		if subtle.ConstantTimeCompare([]byte(Code(s, n)), []byte(code)) == 1 && n > last {
			step, ok = n, true
		}
	}
	return step, ok
}

// Text is a secret as people type it: base32 without padding.
func Text(s secret.Bytes) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(s.Expose())
}

// URI is what the QR code for an authenticator app holds.
func URI(issuer, account string, s secret.Bytes) string {
	q := url.Values{"secret": {Text(s)}, "issuer": {issuer}, "algorithm": {"SHA1"}, "digits": {fmt.Sprint(Digits)},
		"period": {fmt.Sprint(int(Step / time.Second))}}
	// Apps do not take "+" for a blank.
	return "otpauth://totp/" + url.PathEscape(issuer+":"+account) + "?" + escapeBlanks(q.Encode())
}

func escapeBlanks(q string) string {
	out := make([]byte, 0, len(q))
	for i := range len(q) {
		if q[i] == '+' {
			out = append(out, "%20"...)
		} else {
			out = append(out, q[i])
		}
	}
	return string(out)
}
