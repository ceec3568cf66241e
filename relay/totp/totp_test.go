package totp

import (
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// RFC 6238, appendix B, for SHA-1. Its codes have eight digits; ours are their last six.
func TestAppendixB(t *testing.T) {
	s := secret.FromString("12345678901234567890")
	for at, want := range map[int64]string{59: "94287082", 1111111109: "07081804", 1111111111: "14050471", 1234567890: "89005924",
		2000000000: "69279037", 20000000000: "65353130"} {
		step := StepAt(time.Unix(at, 0))
		if got := fmt.Sprintf("%08d", truncated(s, step)%100_000_000); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
		if got := Code(s, step); got != want[2:] {
			t.Errorf("at %d: %s, want %s", at, got, want[2:])
		}
	}
}

// What another program makes of the same secret is the same.
func TestOathtoolAgrees(t *testing.T) {
	program, err := exec.LookPath("oathtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("oathtool is not installed; internal/testenv/servers/install.sh installs it on Debian")
		}
		t.Skip("SKIPPED, NOT TESTED: oathtool is not installed; internal/testenv/servers/install.sh installs it on Debian")
	}
	s := NewSecret()
	for _, at := range []time.Time{time.Unix(59, 0), time.Unix(1_800_000_000, 0), time.Now()} {
		out, err := exec.CommandContext(t.Context(), program, "--totp", "--now="+at.UTC().Format("2006-01-02 15:04:05 UTC"), hex.EncodeToString(s.Expose())).Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := Code(s, StepAt(at)); got != strings.TrimSpace(string(out)) {
			t.Errorf("at %s: %s, oathtool says %s", at, got, out)
		}
	}
	out, err := exec.CommandContext(t.Context(), program, "--totp", "--base32", "--now=2026-11-28 00:00:00 UTC", Text(s)).Output()
	if err != nil || strings.TrimSpace(string(out)) != Code(s, StepAt(time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC))) {
		t.Errorf("the text of the secret reads otherwise: %s %v", out, err)
	}
}

// F10: a clock that is off by one step is taken, by two is not. F6: a step that was accepted is not accepted again, nor is one
// before it.
func TestCodeCountsWithinOneStepAndOnce(t *testing.T) {
	t.Run("F6 F10 one step either way, once", testCodeCountsWithinOneStepAndOnce)
}

func testCodeCountsWithinOneStepAndOnce(t *testing.T) {
	s, at := NewSecret(), time.Unix(1_800_000_000, 0)
	now := StepAt(at)
	for off, want := range map[int64]bool{-3: false, -2: false, -1: true, 0: true, 1: true, 2: false, 3: false} {
		if step, ok := Match(s, Code(s, now+off), at, 0); ok != want || ok && step != now+off {
			t.Errorf("off by %d: %v at step %d", off, ok, step)
		}
	}
	if _, ok := Match(s, Code(s, now), at, now); ok {
		t.Error("F6 a code counts twice")
	}
	if _, ok := Match(s, Code(s, now-1), at, now); ok {
		t.Error("F6 an older code counts after a newer one")
	}
	if step, ok := Match(s, Code(s, now+1), at, now); !ok || step != now+1 {
		t.Error("the next code does not count")
	}
	for _, bad := range []string{"", "12345", "1234567", " " + Code(s, now)[1:], "abcdef", Code(s, now) + "\x00"} {
		if _, ok := Match(s, bad, at, 0); ok {
			t.Errorf("%q counts", bad)
		}
	}
	if _, ok := Match(secret.Bytes{}, "328482", time.Unix(0, 0), -5); ok {
		t.Error("no secret has a code")
	}
}

func TestURI(t *testing.T) {
	s := secret.FromString("12345678901234567890")
	text := URI("Fairlead default", "anna+x@example.com", s)
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/Fairlead default:anna+x@example.com" || strings.Contains(u.RawQuery, "+") {
		t.Fatal(text, err)
	}
	if q := u.Query(); q.Get("secret") != "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" || q.Get("issuer") != "Fairlead default" || q.Get("digits") != "6" || q.Get("period") != "30" {
		t.Error(text)
	}
	if a, b := NewSecret(), NewSecret(); a.Equal(b) || len(a.Expose()) != 20 {
		t.Error("secrets are not random")
	}
}
