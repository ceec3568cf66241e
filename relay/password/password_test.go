package password_test

import (
	"crypto/sha1"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/password"
)

func refused(t *testing.T, what, text string, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%s is taken", what)
		return
	}
	e := protocol.AsError(err)
	if e.Code != protocol.CodeInvalid {
		t.Errorf("%s: %v", what, err)
	}
	if len(text) > 5 && strings.Contains(e.Error()+e.Hint, text) {
		t.Errorf("%s: the error shows the password", what)
	}
}

func TestPasswordsThatAreRefused(t *testing.T) {
	var p password.Policy
	for what, text := range map[string]string{
		"14 characters":          "velvet-otter-4",
		"the user's name":        "my-dear-Anna.Smith-and-me",
		"one character":          strings.Repeat("a", 20),
		"a common one twice":     "password1password1",
		"a short one many times": "abc123abc123abc123",
		"a run":                  "abcdefghijklmnopq",
		"a run down":             "zyxwvutsrqponmlkj",
	} {
		refused(t, what, text, p.Judge(text, "anna.smith@example.com", false, nil))
	}
	for _, good := range []string{"velvet otter seven", "correct horse battery staple", "Ünïcödé-wörter-viele", strings.Repeat("long enough ", 5) + "x"} {
		if err := p.Judge(good, "anna", false, nil); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	refused(t, "a common one beside a second factor", "iloveyou", p.Judge("iloveyou", "anna", true, nil))
	refused(t, "a common one in capitals", "IloveYOU", p.Judge("IloveYOU", "anna", true, nil))
	refused(t, "7 beside a second factor", "ott-er7", p.Judge("ott-er7", "anna", true, nil))
	if err := p.Judge("ott-er7x", "anna", true, nil); err != nil {
		t.Error("8 characters are enough beside a second factor:", err)
	}
	p.Classes = 3
	refused(t, "two kinds of three", "velvet otter seven", p.Judge("velvet otter seven", "anna", false, nil))
	if err := p.Judge("Velvet otter seven", "anna", false, nil); err != nil {
		t.Error(err)
	}
	p = password.Policy{MinLength: 20}
	refused(t, "19 of 20", "velvet otter seven!", p.Judge("velvet otter seven!", "anna", true, nil))
}

// F4: long, odd and decomposed passwords.
func TestNormalForm(t *testing.T) { t.Run("F4 long, odd and otherwise composed", testNormalForm) }

func testNormalForm(t *testing.T) {
	composed, err := password.Normal("caf\u00e9 noir")
	if err != nil {
		t.Fatal(err)
	}
	decomposed, err := password.Normal("cafe\u0301\u00a0noir")
	if err != nil || composed != decomposed {
		t.Errorf("F4 %q and %q differ: %v", composed, decomposed, err)
	}
	long := strings.Repeat("x", password.MaxBytes)
	if out, err := password.Normal(long); err != nil || out != long {
		t.Error("the longest is refused or cut:", err)
	}
	for what, text := range map[string]string{"F4 1 MB": strings.Repeat("x", 1<<20), "F4 NUL": "velvet\x00otter", "a control character": "velvet\notter",
		"nothing": "", "not UTF-8": "velvet\xff\xfeotter", "one byte too many": long + "x"} {
		_, err := password.Normal(text)
		refused(t, what, "velvet", err)
	}
}

func TestPolicyIsChecked(t *testing.T) {
	for _, p := range []password.Policy{{MinLength: 7}, {MinLength: 65}, {MinLength: -1}, {Classes: 5}, {Classes: -1}, {MaxAgeDays: -1}, {MaxAgeDays: 4000}, {History: 11}, {History: -1}} {
		if field, _ := p.Check(); field == "" {
			t.Errorf("%+v", p)
		}
	}
	for _, p := range []password.Policy{{}, {MinLength: 8, Classes: 4, MaxAgeDays: 90, History: 10}, {MinLength: 64}} {
		if field, want := p.Check(); field != "" {
			t.Errorf("%+v: %s %s", p, field, want)
		}
	}
}

func hashOf(s string) string { return fmt.Sprintf("%X", sha1.Sum([]byte(s))) }

func list(t *testing.T, lines []string, end string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "leaked.txt")
	if err := os.WriteFile(file, []byte(strings.Join(lines, end)+end), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLeakedPasswordIsRefused(t *testing.T) {
	var whole, prefixes []string
	for i := range 1000 {
		h := hashOf(fmt.Sprint("leaked password ", i))
		whole, prefixes = append(whole, fmt.Sprintf("%s:%d", h, i*i*i+1)), append(prefixes, h[:16])
	}
	slices.Sort(whole)
	slices.Sort(prefixes)
	for name, file := range map[string]string{"hashes": list(t, whole, "\n"), "hashes of Windows": list(t, whole, "\r\n"), "prefixes": list(t, prefixes, "\n")} {
		l, err := password.OpenLeaked(file)
		if err != nil {
			t.Fatal(name, err)
		}
		for i := range 1000 {
			text := fmt.Sprint("leaked password ", i)
			if in, err := l.Has(text); !in || err != nil {
				t.Fatalf("%s: %q: %v %v", name, text, in, err)
			}
			if in, err := l.Has("other " + text); in || err != nil {
				t.Fatalf("%s: other %q: %v %v", name, text, in, err)
			}
		}
		refused(t, name, "leaked password 7", password.Policy{}.Judge("leaked password 7", "anna", false, l))
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		// P14: what cannot be asked is not taken for good.
		if err := (password.Policy{}).Judge("velvet otter seven", "anna", false, l); protocol.AsError(err).Code != protocol.CodeUnavailable {
			t.Errorf("%s: a list that cannot be read: %v", name, err)
		}
	}
	for name, lines := range map[string][]string{"words": {"password", "letmein1"}, "nothing": {""}, "short prefixes": {"ABCDE", "ABCDF"},
		"descending": {hashOf("a"), strings.Repeat("0", 40)}, "a long line": {strings.Repeat("A", 200)}} {
		if _, err := password.OpenLeaked(list(t, lines, "\n")); err == nil {
			t.Errorf("%s is taken for a list", name)
		}
	}
	if _, err := password.OpenLeaked(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there")
	}
}
