package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Sizes of keys and of what Seal adds to a value, in bytes.
const (
	KeySize  = 32
	Overhead = headerSize + wrappedSize + gcmOverhead

	format      = 1
	idSize      = 16
	headerSize  = 1 + idSize
	gcmOverhead = 12 + 16
	wrappedSize = KeySize + gcmOverhead
)

// ErrOpen says that a sealed value does not open with this key at this place: it was moved, changed, or belongs to another
// key. It says no more on purpose.
var ErrOpen = errors.New("sealed value does not open with this key at this place")

// Context names the one place that a sealed value belongs to. All of it is authenticated, none of it is stored in the value.
type Context struct {
	Workspace string // empty: the installation's own
	Table     string
	Row       string
	Column    string
	Version   int64 // of the row: an older value of the same row does not open
}

// bytes is an unambiguous encoding: every string is preceded by its length.
func (c Context) bytes(layer string, header []byte) []byte {
	b := make([]byte, 0, 96+len(c.Workspace)+len(c.Table)+len(c.Row)+len(c.Column))
	for _, s := range [...]string{"fairlead envelope", layer, string(header), c.Workspace, c.Table, c.Row, c.Column} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return binary.BigEndian.AppendUint64(b, uint64(c.Version))
}

// Key is a workspace's or the installation's key. Immutable and safe for concurrent use. It prints as its id.
type Key struct {
	id   [idSize]byte
	raw  func() []byte // behind a function so that fmt does not reach it
	aead cipher.AEAD
}

// NewKey makes a random key. A failing random source ends the process (crypto/rand does so itself).
func NewKey() *Key {
	b := make([]byte, KeySize)
	rand.Read(b)
	k, err := ParseKey(b)
	if err != nil {
		panic("envelope: a fresh key is refused: " + err.Error())
	}
	return k
}

// ParseKey takes ownership of 32 key bytes.
func ParseKey(raw []byte) (*Key, error) {
	if len(raw) != KeySize {
		return nil, fmt.Errorf("a key is %d bytes, not %d", KeySize, len(raw))
	}
	a, err := newAEAD(raw)
	if err != nil {
		return nil, err
	}
	k := &Key{raw: func() []byte { return raw }, aead: a}
	m := hmac.New(sha256.New, raw)
	m.Write([]byte("fairlead key id"))
	copy(k.id[:], m.Sum(nil))
	return k, nil
}

// ID is a commitment to the key, in hexadecimal: safe to store and to show.
func (k *Key) ID() string { return hex.EncodeToString(k.id[:]) }

// String gives the id.
func (k *Key) String() string { return "key " + k.ID() }

// Format keeps every verb from the key bytes.
func (k *Key) Format(f fmt.State, _ rune) { fmt.Fprint(f, k.String()) }

// Derive gives a key for another purpose (a keyed digest) that tells nothing of this one: HKDF-SHA256, RFC 5869.
func (k *Key) Derive(purpose string) []byte {
	b, err := hkdf.Key(sha256.New, k.raw(), nil, "fairlead "+purpose, KeySize)
	if err != nil {
		panic("envelope: derive a key: " + err.Error()) // only for an impossible length
	}
	return b
}

// wrapWith hands a copy of the key bytes to a wrapping function.
func (k *Key) wrapWith(wrap func(key []byte) ([]byte, error)) ([]byte, error) {
	return wrap(slices.Clone(k.raw()))
}

func newAEAD(raw []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(raw)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(b)
}

// Seal seals plaintext for the one place c. The result is Overhead bytes longer.
func Seal(k *Key, plaintext []byte, c Context) []byte {
	out := make([]byte, headerSize, Overhead+len(plaintext))
	out[0] = format
	copy(out[1:], k.id[:])
	header := slices.Clone(out)
	own := make([]byte, KeySize)
	rand.Read(own)
	defer clear(own)
	a, err := newAEAD(own)
	if err != nil {
		panic("envelope: a fresh key is refused: " + err.Error())
	}
	out = k.aead.Seal(out, nil, own, c.bytes("key", header))
	return a.Seal(out, nil, plaintext, c.bytes("value", header))
}

// Open gives back what Seal sealed for the same place with the same key, else ErrOpen.
func Open(k *Key, sealed []byte, c Context) ([]byte, error) {
	own, header, err := k.openKey(sealed, c)
	if err != nil {
		return nil, err
	}
	defer clear(own)
	a, err := newAEAD(own)
	if err != nil {
		return nil, ErrOpen
	}
	plain, err := a.Open(nil, nil, sealed[headerSize+wrappedSize:], c.bytes("value", header))
	if err != nil {
		return nil, ErrOpen
	}
	return plain, nil
}

func (k *Key) openKey(sealed []byte, c Context) (own, header []byte, err error) {
	if len(sealed) < Overhead || sealed[0] != format {
		return nil, nil, ErrOpen
	}
	header = sealed[:headerSize:headerSize]
	if subtle.ConstantTimeCompare(header[1:], k.id[:]) != 1 {
		return nil, nil, ErrOpen
	}
	own, err = k.aead.Open(nil, nil, sealed[headerSize:headerSize+wrappedSize], c.bytes("key", header))
	if err != nil {
		return nil, nil, ErrOpen
	}
	return own, header, nil
}

// Reseal moves a sealed value from one key to another at the same place. A value that is under the new key already comes back
// as it is, so that a rotation that was interrupted can run again.
func Reseal(from, to *Key, sealed []byte, c Context) ([]byte, error) {
	if id, err := KeyID(sealed); err == nil && id == to.ID() {
		if _, err := Open(to, sealed, c); err != nil {
			return nil, err
		}
		return sealed, nil
	}
	plain, err := Open(from, sealed, c)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return Seal(to, plain, c), nil
}

// KeyID tells which key a sealed value needs.
func KeyID(sealed []byte) (string, error) {
	if len(sealed) < Overhead || sealed[0] != format {
		return "", ErrOpen
	}
	return hex.EncodeToString(sealed[1:headerSize]), nil
}
