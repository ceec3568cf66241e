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

// Rounds of PBKDF2-HMAC-SHA512 for new verifiers. maxRounds keeps a changed database from holding a core for hours.
const (
	Rounds    = 210_000
	maxRounds = 20 * Rounds

	saltSize   = 16
	verifySize = 32
)

// NewVerifier gives the slow hash of a token: "pbkdf2-sha512$rounds$salt$hash". It takes about a tenth of a second of a core.
func NewVerifier(token string) (string, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	h, err := pbkdf2.Key(sha512.New, token, salt, Rounds, verifySize)
	if err != nil {
		return "", fmt.Errorf("hash a token: %w", err)
	}
	b := base64.RawStdEncoding
	return fmt.Sprintf("pbkdf2-sha512$%d$%s$%s", Rounds, b.EncodeToString(salt), b.EncodeToString(h)), nil
}

// Verify tells whether a token is the one that a verifier was made of. It takes as long as NewVerifier; a verifier that is
// malformed, or has fewer rounds than Rounds, never matches.
func Verify(verifier, token string) bool {
	parts := strings.Split(verifier, "$")
	if len(parts) != 4 || parts[0] != "pbkdf2-sha512" {
		return false
	}
	rounds, err := strconv.Atoi(parts[1])
	if err != nil || rounds < Rounds || rounds > maxRounds {
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
