package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type sample struct {
	Version int               `yaml:"version"`
	Mode    string            `yaml:"mode" enum:"read_only,read_write"`
	Port    uint16            `yaml:"port"`
	On      bool              `yaml:"on"`
	Max     config.Size       `yaml:"max"`
	Wait    config.Duration   `yaml:"wait"`
	List    []string          `yaml:"list"`
	Verbs   []string          `yaml:"verbs" enum:"read,write"`
	Items   map[string]item   `yaml:"items"`
	Pass    config.SecretRef  `yaml:"password"`
	Inner   *item             `yaml:"inner"`
	Hidden  string            `yaml:"-"`
	Labels  map[string]string `yaml:"labels"`
}

type item struct {
	Name string `yaml:"name"`
	Size int64  `yaml:"size"`
}

func (i *item) SetDefaults() { i.Size = 7 }

func TestDecode(t *testing.T) {
	v := sample{Mode: "read_only", Port: 1}
	err := config.Decode("a.yaml", []byte(`# comment
version: 1
on: true
max: 2GB
wait: 1h30m
list: [a, "b c"]
verbs: [read]
items:
  one: { name: x }
  "two.three": { name: "y", size: 0 }
password_file: x.pw
inner: { name: z }
labels: { a: b }
`), &v)
	if err != nil {
		t.Fatal(err)
	}
	if v.Version != 1 || v.Mode != "read_only" || v.Port != 1 || !v.On || v.Max != 2e9 || time.Duration(v.Wait) != 90*time.Minute ||
		len(v.List) != 2 || v.Items["one"] != (item{"x", 7}) || v.Items["two.three"] != (item{"y", 0}) || v.Pass.File != "x.pw" || v.Inner.Name != "z" {
		t.Fatalf("got %+v", v)
	}
}

// TestEveryFaultIsPlaced checks message, place, path and nearest name of each fault in one file, all at once.
func TestEveryFaultIsPlaced(t *testing.T) {
	v := sample{}
	err := config.Decode("a.yaml", []byte(`versio: 1
mode: read_onyl
port: 70000
on: yes
max: 2 gigs
wait: 30
list: a
verbs: [read, wirte]
items:
  one: { nam: x, size: 010 }
  two:
password: hunter2
inner: [1]
Hidden: x
`), &v)
	var fs config.Faults
	if !errors.As(err, &fs) {
		t.Fatalf("got %v", err)
	}
	want := []string{
		`a.yaml:1:1: versio: unknown key "versio"; did you mean "version"?`,
		`a.yaml:2:7: mode: "read_onyl" is not known here; did you mean "read_only"?`,
		`a.yaml:3:7: port: 70000 is more than 65535`,
		`a.yaml:4:5: on: wants true or false, not "yes"`,
		`a.yaml:5:6: max: "2 gigs" is not a size`,
		`a.yaml:6:7: wait: "30" is not a time span; write a number with ms, s, m or h, such as "30s"; did you mean "30s"?`,
		`a.yaml:7:7: list: wants a list, not a single value; write [a]`,
		`a.yaml:8:15: verbs[1]: "wirte" is not known here; did you mean "write"?`,
		`a.yaml:10:10: items.one.nam: unknown key "nam"; did you mean "name"?`,
		`a.yaml:10:24: items.one.size: wants a whole number, not "010"`,
		`a.yaml:11:7: items.two: value is missing`,
		`a.yaml:12:11: password: a secret must not stand in this file; put the secret in a file of its own and name it: password_file: NAME`,
		`a.yaml:13:8: inner: wants settings (key: value), not a list`,
		`a.yaml:14:1: Hidden: unknown key "Hidden"; valid here: version, mode`,
	}
	got := strings.Split(err.Error(), "\n")
	if len(got) != len(want) {
		t.Errorf("got %d faults, want %d:\n%v", len(got), len(want), err)
	}
	for i := range min(len(got), len(want)) {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("fault %d\n got %s\nwant %s…", i, got[i], want[i])
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("a fault repeats the secret")
	}
}

func TestFormRefused(t *testing.T) {
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c <= 'i'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	var many strings.Builder
	for i := range 70000 {
		fmt.Fprintf(&many, "k%d: 1\n", i)
	}
	block := ""
	for i := range 500 {
		block += strings.Repeat(" ", i) + "a:\n"
	}
	for name, c := range map[string]struct{ in, want string }{
		"L1 alias bomb":          {bomb, "anchors (&name) are not supported"},
		"L1 10 MB":               {strings.Repeat("a: 1\n", 2<<20), "more than 1048576 bytes"},
		"L1 a list of 500,000":   {"list: [" + strings.Repeat("a,", 500_000) + "]", "more than 100000 values"},
		"L1 a list of 90,000":    {"on: [" + strings.Repeat("a,", 90_000) + "]", "wants one value"},
		"L1 depth 10^4":          {strings.Repeat("[", 10000), "nested deeper than 64"},
		"L1 depth 10^4 maps":     {"a: " + strings.Repeat("{a: ", 10000), "nested deeper than 64"},
		"L1 depth 500 blocks":    {block, "nested deeper than 64"},
		"L1 70,000 keys":         {many.String(), "unknown key"},
		"L1 merge key":           {"labels: { <<: {a: b} }\n", "merge keys"},
		"L1 anchor on a key":     {"? &x version\n: 1\n", "anchors"},
		"alias":                  {"mode: *x\n", "an alias (*) of what has no anchor"},
		"tag":                    {"version: !!int \"1\"\n", "tags"},
		"binary tag":             {"mode: !!binary aGk=\n", "tags"},
		"duplicate key":          {"version: 1\non: true\nversion: 2\n", `a.yaml:3:1: version: key "version" stands twice (first on line 1)`},
		"duplicate key below":    {"labels: {a: b, a: c}\n", "stands twice"},
		"second document":        {"version: 1\n---\nversion: 2\n", "second document"},
		"broken second document": {"version: 1\n---\n}\n", "not valid YAML"},
		"L3 empty":               {"", "file is empty"},
		"L3 whitespace":          {" \n \n", "file is empty"},
		"L3 comments":            {"# nothing\n", "file is empty"},
		"null document":          {"~\n", "value is missing"},
		"tab":                    {"items:\n\tone: 1\n", "a.yaml:2:1: tab in the indentation; use spaces"},
		"not UTF-8":              {"mode: \xff\n", "not valid UTF-8"},
		"list at the top":        {"- a\n", "wants settings"},
		"complex key":            {"? [a]\n: b\n", "a key must be plain text"},
		"float for text":         {"mode: 10.5\n", `wants text; put it in quotes: "10.5"`},
		"NUL in text":            {"labels: {a: \"x\\0y\"}\n", "NUL"},
		"hex number":             {"version: 0x1\n", "whole number"},
		"quoted number":          {"version: \"1\"\n", "whole number"},
		"negative number":        {"version: -1\n", "whole number"},
		"both secrets":           {"password_file: a\npassword: {env: B}\n", "name one secret"},
		"sealed":                 {"password: {sealed: abc}\n", "not available in this version"},
		"vault":                  {"password: {vault: a/b}\n", "not available in this version"},
		"secret from nowhere":    {"password: {}\n", "exactly one of"},
		"secret from file key":   {"password: {file: x}\n", "password_file"},
		"secret from a bad name": {"password: {env: \"$X\"}\n", "name of an environment variable"},
		"empty secret file name": {"password_file: \"\"\n", "wants a name"},
	} {
		t.Run(name, func(t *testing.T) {
			in := []byte(c.in)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := config.Decode("a.yaml", in, &sample{})
			runtime.ReadMemStats(&after)
			if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 64 {
				t.Errorf("took %d MiB", n)
			}
			var fs config.Faults
			if !errors.As(err, &fs) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %.400v, want %q", err, c.want)
			}
		})
	}
}

func TestSizesAndDurations(t *testing.T) {
	for in, want := range map[string]int64{"0": 0, "17": 17, "1B": 1, "2GB": 2e9, "512MiB": 512 << 20, "1 KiB": 1024, "3TB": 3e12, "10kB": 10000} {
		var s config.Size
		if err := s.UnmarshalText([]byte(in)); err != nil || int64(s) != want {
			t.Errorf("%q: got %d, %v", in, s, err)
		}
		var back config.Size
		if err := back.UnmarshalText([]byte(s.String())); err != nil || back != s {
			t.Errorf("%q does not come back from %q", in, s.String())
		}
	}
	for _, in := range []string{"", "GB", "-1", "+1", "1.5GB", "1gb", "2GBs", "01", "1  GB", "99999999999TB", "9999999999999999999"} {
		var s config.Size
		if err := s.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("size %q was taken as %d", in, s)
		}
	}
	for _, in := range []string{"", "30", "-1s", "+1s", "1d", "s", "1s "} {
		var d config.Duration
		if err := d.UnmarshalText([]byte(in)); err == nil {
			t.Errorf("duration %q was taken as %s", in, d)
		}
	}
}

func TestPaths(t *testing.T) {
	d, err := config.Parse("a.yaml", []byte("items:\n  one:\n    name: x\n  a.b: {name: y}\nlist:\n  - p\n"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]config.Pos{
		"items.one.name": {3, 5}, "items.one.gone": {2, 3}, `items["a.b"].name`: {4, 9}, "list[0]": {6, 5}, "list[7]": {5, 1}, "gone": {1, 1},
	} {
		if got := d.At(path); got != want {
			t.Errorf("%s: got %v, want %v", path, got, want)
		}
	}
	if f := d.Fault("items.one", "bad", "good"); f.Error() != "a.yaml:2:3: items.one: bad; good" {
		t.Errorf("got %s", f)
	}
}

func write(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestReadFileRefusesWhatOthersCanChange(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes are a Unix matter; the access list is checked there instead")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o644: true, 0o640: true, 0o444: true, 0o660: false, 0o666: false, 0o602: false} {
		t.Run(fmt.Sprintf("L4 mode %04o", mode), func(t *testing.T) {
			write(t, path, "a: 1\n", mode)
			_, err := config.ReadFile(path)
			if ok != (err == nil) || !ok && !errors.Is(err, config.ErrInsecure) {
				t.Errorf("got %v", err)
			}
			if !ok && !strings.Contains(err.Error(), "chmod go-w") {
				t.Errorf("no way out is named: %v", err)
			}
		})
	}
	write(t, path, "a: 1\n", 0o600)
	t.Run("L4 folder writable by others", func(t *testing.T) {
		defer os.Chmod(dir, 0o700)
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if _, err := config.ReadFile(path); !errors.Is(err, config.ErrInsecure) {
			t.Errorf("got %v", err)
		}
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if _, err := config.ReadFile(path); err != nil {
			t.Errorf("sticky folder, as Kubernetes mounts are: %v", err)
		}
	})
	t.Run("L4 owner is somebody else", func(t *testing.T) {
		if os.Geteuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatal("needs root")
			}
			t.Skip("needs root")
		}
		if err := os.Chown(path, 4242, -1); err != nil {
			t.Fatal(err)
		}
		defer os.Chown(path, 0, -1)
		if _, err := config.ReadFile(path); !errors.Is(err, config.ErrInsecure) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		big := filepath.Join(dir, "big")
		write(t, big, strings.Repeat("#", config.MaxBytes+1), 0o600)
		if _, err := config.ReadFile(big); err == nil {
			t.Error("was read")
		}
	})
	for name, p := range map[string]string{"absent": filepath.Join(dir, "none"), "folder": dir, "device": os.DevNull} {
		t.Run(name, func(t *testing.T) {
			if _, err := config.ReadFile(p); err == nil {
				t.Error("was read")
			}
		})
	}
}

func TestSecretRef(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.pw"), "s3cret\r\n", 0o600)
	write(t, filepath.Join(dir, "empty.pw"), "\n", 0o600)
	t.Setenv("FAIRLEAD_TEST_SECRET", "from-env")
	for _, r := range []config.SecretRef{{File: "a.pw"}, {File: filepath.Join(dir, "a.pw")}} {
		s, err := r.Resolve(dir)
		if err != nil || s.ExposeString() != "s3cret" {
			t.Errorf("%+v: got %q, %v", r, s.ExposeString(), err)
		}
	}
	if s, err := (config.SecretRef{Env: "FAIRLEAD_TEST_SECRET"}).Resolve(dir); err != nil || s.ExposeString() != "from-env" {
		t.Errorf("got %v", err)
	}
	for _, r := range []config.SecretRef{{}, {File: "none"}, {File: "empty.pw"}, {Env: "FAIRLEAD_TEST_NONE"}, {Sealed: "x"}, {Vault: "x"}} {
		if s, err := r.Resolve(dir); err == nil || !s.IsZero() {
			t.Errorf("%+v was resolved", r)
		}
	}
	if runtime.GOOS == "windows" {
		return
	}
	for mode, ok := range map[os.FileMode]bool{0o400: true, 0o640: true, 0o644: false, 0o604: false, 0o620: false} {
		write(t, filepath.Join(dir, "b.pw"), "x", mode)
		if _, err := (config.SecretRef{File: "b.pw"}).Resolve(dir); ok != (err == nil) {
			t.Errorf("mode %04o: got %v", mode, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{"version: 1\n", "items:\n  one: {name: x}\n", "password: {env: A}\n", "a: &b [1]\n", "- !!set {a}\n", "? [a]\n: b", "\"\\x00\": 1", "x: |\n a\n\tb\n", "{", "a: 'b", "%YAML 1.1\n---\na: b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, b := sample{}, sample{}
		errA, errB := config.Decode("a.yaml", data, &a), config.Decode("a.yaml", data, &b)
		if (errA == nil) != (errB == nil) || errA == nil && fmt.Sprintf("%+v", a.Items) != fmt.Sprintf("%+v", b.Items) {
			t.Fatal("two readings differ")
		}
		var fs config.Faults
		if errA != nil && !errors.As(errA, &fs) {
			t.Fatalf("not Faults: %v", errA)
		}
	})
}
