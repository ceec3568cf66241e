package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

// Redacted is what a Bytes prints as.
const Redacted = "[redacted]"

// Bytes is a secret value. The zero value is "no secret". Copies share the underlying bytes: Wipe wipes them all. Safe for
// concurrent use except for Wipe.
//
// The value stands behind a function because fmt walks unexported fields by reflection without asking for Format: it
// follows a pointer for a verb it finds bad, but of a function it prints the address alone.
type Bytes struct{ get func() []byte }

// New takes ownership of b.
func New(b []byte) Bytes { return Bytes{func() []byte { return b }} }

// FromString copies s. The string itself cannot be wiped; read secrets as bytes where possible.
func FromString(s string) Bytes { return New([]byte(s)) }

// Expose gives the value itself. The caller must not keep, print or change it.
func (s Bytes) Expose() []byte {
	if s.get == nil {
		return nil
	}
	return s.get()
}

// ExposeString gives the value as a string, for interfaces that want one (database drivers).
func (s Bytes) ExposeString() string { return string(s.Expose()) }

// IsZero reports whether there is no secret.
func (s Bytes) IsZero() bool { return len(s.Expose()) == 0 }

// Equal compares in constant time for equal lengths.
func (s Bytes) Equal(o Bytes) bool { return subtle.ConstantTimeCompare(s.Expose(), o.Expose()) == 1 }

// Wipe overwrites the value with zeros.
func (s Bytes) Wipe() { clear(s.Expose()) }

// String implements fmt.Stringer.
func (Bytes) String() string { return Redacted }

// GoString implements fmt.GoStringer (%#v).
func (Bytes) GoString() string { return Redacted }

// Format implements fmt.Formatter, so that no verb (%x, %d, %q …) reaches the bytes.
func (Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(Redacted)) }

// LogValue implements slog.LogValuer.
func (Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON implements json.Marshaler.
func (Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText implements encoding.TextMarshaler.
func (Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// MarshalYAML implements yaml.Marshaler.
func (Bytes) MarshalYAML() (any, error) { return Redacted, nil }
