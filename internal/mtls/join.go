package mtls

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// JoinPrefix begins the text of a join token.
const JoinPrefix = "flj_"

const (
	joinSecretBytes = 32
	maxJoinText     = 8 << 10
	maxJoinAddrs    = 16
)

// JoinToken is what an agent needs to enroll: where the relay is, which root to trust, and a secret that counts once.
type JoinToken struct {
	Addrs  []string // host:port
	Pin    []byte   // Pin of the root
	Secret secret.Bytes
}

type joinText struct {
	Addrs  []string `json:"a"`
	Pin    string   `json:"p"`
	Secret string   `json:"s"`
}

// NewJoinToken makes a token with a new secret.
func NewJoinToken(addrs []string, pin []byte) (JoinToken, error) {
	b := make([]byte, joinSecretBytes)
	if _, err := rand.Read(b); err != nil {
		return JoinToken{}, fmt.Errorf("make join secret: %w", err)
	}
	t := JoinToken{Addrs: addrs, Pin: pin, Secret: secret.New(b)}
	return t, t.check()
}

// Text is the form to hand to the site's administrator. It is a secret.
func (t JoinToken) Text() string {
	e := base64.RawURLEncoding
	// Strings that encoding/json cannot write do not exist.
	b, _ := json.Marshal(joinText{t.Addrs, e.EncodeToString(t.Pin), t.SecretText()})
	return JoinPrefix + e.EncodeToString(b)
}

// SecretText is what the agent sends to the relay (protocol.EnrollRequest.Token).
func (t JoinToken) SecretText() string {
	return base64.RawURLEncoding.EncodeToString(t.Secret.Expose())
}

// SecretHash is what the relay stores of the secret, and finds it by.
func (t JoinToken) SecretHash() []byte {
	sum := sha256.Sum256(t.Secret.Expose())
	return sum[:]
}

// HashSecretText gives the SecretHash for what an agent sent.
func HashSecretText(text string) ([]byte, error) {
	b, err := decode(text)
	if err != nil || len(b) != joinSecretBytes {
		return nil, errors.New("not the secret of a join token")
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// decode takes base64url in its one canonical form: no padding, no line breaks, no stray bits at the end.
func decode(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line break")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// ParseJoinToken reads a token's text; space around it is ignored. Errors say what is wrong with the text and never
// repeat it.
func ParseJoinToken(text string) (JoinToken, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return JoinToken{}, errors.New("the join token is empty")
	case len(text) > maxJoinText:
		return JoinToken{}, fmt.Errorf("the join token is longer than %d bytes; is it something else?", maxJoinText)
	case strings.HasPrefix(text, "flt_"):
		return JoinToken{}, errors.New("this is an API token (flt_), not a join token (flj_)")
	case strings.HasPrefix(JoinPrefix, text):
		return JoinToken{}, errors.New("the join token is cut off; copy it whole")
	case !strings.HasPrefix(text, JoinPrefix):
		return JoinToken{}, errors.New("a join token begins with flj_")
	}
	body := text[len(JoinPrefix):]
	b, err := decode(body)
	if err != nil {
		if n := strings.Trim(body, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"); n != "" {
			return JoinToken{}, errors.New("the join token has characters that do not belong in it (line break, space, quote?)")
		}
		return JoinToken{}, errors.New("the join token is cut off or garbled; copy it whole")
	}
	var j joinText
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&j); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return JoinToken{}, errors.New("the join token is cut off; copy it whole")
		}
		return JoinToken{}, errors.New("the join token is garbled; copy it again")
	}
	if _, err := d.Token(); err != io.EOF {
		return JoinToken{}, errors.New("the join token has something after its end; copy it again")
	}
	pin, err := decode(j.Pin)
	if err != nil {
		return JoinToken{}, errors.New("the join token's pin is garbled; copy it again")
	}
	s, err := decode(j.Secret)
	if err != nil {
		return JoinToken{}, errors.New("the join token's secret is garbled; copy it again")
	}
	t := JoinToken{Addrs: j.Addrs, Pin: pin, Secret: secret.New(s)}
	return t, t.check()
}

func (t JoinToken) check() error {
	if len(t.Pin) != sha256.Size {
		return errors.New("the join token has no pin of the relay's CA")
	}
	if len(t.Secret.Expose()) != joinSecretBytes {
		return errors.New("the join token has no secret")
	}
	if len(t.Addrs) == 0 || len(t.Addrs) > maxJoinAddrs {
		return fmt.Errorf("the join token names %d relay addresses, want 1 to %d", len(t.Addrs), maxJoinAddrs)
	}
	for _, a := range t.Addrs {
		if err := checkAddr(a); err != nil {
			return fmt.Errorf("the join token's relay address %.100q: %w", a, err)
		}
	}
	return nil
}

func checkAddr(a string) error {
	host, port, err := net.SplitHostPort(a)
	if err != nil || host == "" || len(host) > 253 {
		return errors.New("want host:port")
	}
	for _, c := range []byte(host) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`/\@?#"'<>`, c) >= 0 {
			return errors.New("the host has characters that no host name has")
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errors.New("the port is not 1 to 65535")
	}
	return nil
}
