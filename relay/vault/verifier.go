package vault

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Rounds of PBKDF2-HMAC-SHA512 for new verifiers, and the least and the most that any may have. MaxRounds keeps a changed database
// from holding a core for hours.
const (
	Rounds    = 210_000
	MinRounds = 210_000 // never lowered
	MaxRounds = 20 * MinRounds

	saltSize   = 16
	verifySize = 32
)

// NewVerifier gives the slow hash of a token: "pbkdf2-sha512$rounds$salt$hash". It takes about a tenth of a second of a core.
func NewVerifier(token string) (string, error) { return NewVerifierOf(token, Rounds) }

// NewVerifierOf is NewVerifier with a number of rounds.
func NewVerifierOf(text string, rounds int) (string, error) {
	if rounds < MinRounds || rounds > MaxRounds {
		return "", fmt.Errorf("hash a text: %d rounds are not within %d to %d", rounds, MinRounds, MaxRounds)
	}
	salt := make([]byte, saltSize)
	rand.Read(salt)
	h, err := pbkdf2.Key(sha512.New, text, salt, rounds, verifySize)
	if err != nil {
		return "", fmt.Errorf("hash a text: %w", err)
	}
	b := base64.RawStdEncoding
	return fmt.Sprintf("pbkdf2-sha512$%d$%s$%s", rounds, b.EncodeToString(salt), b.EncodeToString(h)), nil
}

// Verify tells whether a token is the one that a verifier was made of. It takes as long as NewVerifier; a verifier that is
// malformed, or has fewer rounds than MinRounds, never matches.
func Verify(verifier, token string) bool {
	parts := strings.Split(verifier, "$")
	if len(parts) != 4 || parts[0] != "pbkdf2-sha512" {
		return false
	}
	rounds, err := strconv.Atoi(parts[1])
	if err != nil || rounds < MinRounds || rounds > MaxRounds {
		return false
	}
	salt, err1 := base64.RawStdEncoding.Strict().DecodeString(parts[2])
	want, err2 := base64.RawStdEncoding.Strict().DecodeString(parts[3])
	if err1 != nil || err2 != nil || len(salt) < saltSize || len(want) != verifySize {
		return false
	}
	got, err := pbkdf2.Key(sha512.New, token, salt, rounds, verifySize)
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1
}

// VerifyIn is Verify for texts that strangers send: it always takes the time of rounds, also for a verifier with fewer and for
// none (""), so that the time tells nobody whether there is one. stale says that a verifier which matches should be made anew.
func VerifyIn(verifier, text string, rounds int) (ok, stale bool) {
	done := 0
	if parts := strings.Split(verifier, "$"); len(parts) == 4 {
		if n, err := strconv.Atoi(parts[1]); err == nil && n >= MinRounds && n <= MaxRounds {
			done = n
			ok = Verify(verifier, text)
		}
	}
	if rest := rounds - done; rest > 0 {
		_, _ = pbkdf2.Key(sha512.New, text, make([]byte, saltSize), rest, verifySize) // for its time alone
	}
	return ok, done < rounds
}
