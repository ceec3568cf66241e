package envelope

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// KEK is a key-encryption key. Two kinds exist here, a file and an environment variable; key services speak the same words.
// All methods are safe for concurrent use.
type KEK interface {
	// ID names the key without telling anything of it.
	ID() string
	// Wrap seals a key for the place c. It does not keep key.
	Wrap(ctx context.Context, key []byte, c Context) ([]byte, error)
	// Unwrap gives back what Wrap sealed for the same place, else ErrOpen.
	Unwrap(ctx context.Context, wrapped []byte, c Context) ([]byte, error)
	// Health tells whether wrapping and unwrapping work now.
	Health(ctx context.Context) error
}

// WrapKey wraps a key by a KEK for the place c.
func WrapKey(ctx context.Context, kek KEK, k *Key, c Context) ([]byte, error) {
	return k.wrapWith(func(raw []byte) ([]byte, error) {
		defer clear(raw)
		return kek.Wrap(ctx, raw, c)
	})
}

// UnwrapKey gives back a key that WrapKey wrapped for the same place.
func UnwrapKey(ctx context.Context, kek KEK, wrapped []byte, c Context) (*Key, error) {
	raw, err := kek.Unwrap(ctx, wrapped, c)
	if err != nil {
		return nil, err
	}
	return ParseKey(raw)
}

// local is a KEK that this process holds in memory.
type local struct{ key *Key }

func (l local) ID() string { return "local:" + l.key.ID() }

func (l local) Wrap(_ context.Context, key []byte, c Context) ([]byte, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("wrap a key: it is %d bytes, not %d", len(key), KeySize)
	}
	return Seal(l.key, key, c), nil
}

func (l local) Unwrap(_ context.Context, wrapped []byte, c Context) ([]byte, error) {
	return Open(l.key, wrapped, c)
}

func (l local) Health(context.Context) error { return nil }

// maxKEKText bounds a key's text: 44 characters of base64 and a line end.
const maxKEKText = 256

// NewKEKFile makes a key file with a random key, readable by its owner alone. It refuses to overwrite: losing this key loses
// everything that it wraps.
func NewKEKFile(path string) (KEK, error) {
	k := NewKey()
	var text []byte
	if _, err := k.wrapWith(func(raw []byte) ([]byte, error) {
		text = append(base64.StdEncoding.AppendEncode(nil, raw), '\n')
		clear(raw)
		return nil, nil
	}); err != nil {
		return nil, err
	}
	defer clear(text)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create key file: %w", err)
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, fmt.Errorf("write key file %s: %w", path, err)
	}
	return local{k}, nil
}

// LoadKEKFile reads a key file. It refuses a file that is missing, not a plain file, readable by others than its owner, or
// that does not hold exactly 32 random bytes in base64.
func LoadKEKFile(path string) (KEK, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	defer f.Close()
	st, err := f.Stat() // of the open file: it cannot be swapped between check and read
	if err != nil {
		return nil, fmt.Errorf("open key file: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("key file %s: not a plain file", path)
	}
	if err := ownerOnly(st.Mode()); err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKEKText+1))
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	defer clear(text)
	k, err := parseKEK(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return k, nil
}

// EnvKEK takes the key from an environment variable, in the form of a key file, and removes the variable so that no child
// process inherits it. A second call therefore fails.
func EnvKEK(name string) (KEK, error) {
	text, ok := os.LookupEnv(name)
	if !ok || text == "" {
		return nil, fmt.Errorf("environment variable %s: not set; it must hold 32 random bytes in base64", name)
	}
	k, err := parseKEK([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("environment variable %s: %w", name, err)
	}
	if err := os.Unsetenv(name); err != nil {
		return nil, fmt.Errorf("environment variable %s: %w", name, err)
	}
	return k, nil
}

func parseKEK(text []byte) (KEK, error) {
	if len(text) > maxKEKText {
		return nil, errors.New("too long: it must hold 32 random bytes in base64 and nothing else")
	}
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return nil, errors.New("empty: it must hold 32 random bytes in base64")
	}
	raw := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(raw, text)
	if err != nil {
		clear(raw)
		return nil, errors.New("not base64: it must hold 32 random bytes in base64")
	}
	raw = raw[:n]
	if n != KeySize {
		clear(raw)
		return nil, fmt.Errorf("holds %d bytes, must hold %d", n, KeySize)
	}
	if guessable(raw) {
		clear(raw)
		return nil, errors.New("holds text or a pattern, not random bytes; make a new one")
	}
	k, err := ParseKey(raw)
	if err != nil {
		return nil, err
	}
	return local{k}, nil
}

// guessable finds what no random source gives in the life of the universe: a passphrase, or few different bytes.
func guessable(raw []byte) bool {
	text, seen := true, map[byte]bool{}
	for _, b := range raw {
		text = text && b >= ' ' && b <= '~'
		seen[b] = true
	}
	return text || len(seen) < 12
}

// IsMissing reports whether a key could not be loaded because its file is not there.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
