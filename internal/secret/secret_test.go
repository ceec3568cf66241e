package secret_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/fairleadhq/fairlead/internal/secret"
)

const canary = "canary-7f3a91"

func TestSecretPrintsNowhere(t *testing.T) {
	s := secret.FromString(canary)
	type holder struct {
		Public string
		S      secret.Bytes
		p      secret.Bytes
	}
	h := holder{"x", s, s}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%o", "%08b"} {
		fmt.Fprintf(&out, verb, s)
		fmt.Fprintf(&out, verb, h)
		fmt.Fprintf(&out, verb, &h)
		fmt.Fprintf(&out, verb, []secret.Bytes{s})
		fmt.Fprintf(&out, verb, map[string]secret.Bytes{"k": s})
		fmt.Fprintf(&out, verb, fmt.Errorf("open: %v", s))
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "s", s, "h", h)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "s", s, "h", h)
	for _, enc := range []func(any) ([]byte, error){json.Marshal, xml.Marshal, yaml.Marshal} {
		if b, err := enc(h); err == nil {
			out.Write(b)
		}
	}
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary), fmt.Sprint([]byte(canary))} {
		if strings.Contains(out.String(), form) {
			t.Fatalf("the secret is printed as %q", form)
		}
	}
	if !strings.Contains(out.String(), secret.Redacted) {
		t.Fatal("nothing was printed at all: the test is void")
	}
}

func TestWipeReachesEveryCopy(t *testing.T) {
	a := secret.FromString(canary)
	b := a
	a.Wipe()
	if bytes.Contains(b.Expose(), []byte("canary")) {
		t.Fatal("a copy kept the value")
	}
	if !(secret.Bytes{}).IsZero() || b.IsZero() {
		t.Fatal("IsZero is about length, not content")
	}
}
