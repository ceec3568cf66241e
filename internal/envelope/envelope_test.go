package envelope

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

var here = Context{Workspace: "ws_a", Table: "connections", Row: "con_1", Column: "sealed", Version: 3}

func TestSealOpens(t *testing.T) {
	k := NewKey()
	for _, n := range []int{0, 1, 15, 16, 17, 4096, 1 << 20} {
		plain := bytes.Repeat([]byte{'x'}, n)
		sealed := Seal(k, plain, here)
		if len(sealed) != n+Overhead {
			t.Fatalf("%d bytes become %d, Overhead is %d", n, len(sealed), Overhead)
		}
		got, err := Open(k, sealed, here)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%d bytes: %v", n, err)
		}
	}
}

// A sealed value opens at its own place alone.
func TestMovedRowDoesNotOpen(t *testing.T) {
	k := NewKey()
	sealed := Seal(k, []byte("secret"), here)
	for name, change := range map[string]func(*Context){
		"workspace": func(c *Context) { c.Workspace = "ws_b" },
		"table":     func(c *Context) { c.Table = "settings" },
		"row":       func(c *Context) { c.Row = "con_2" },
		"column":    func(c *Context) { c.Column = "other" },
		"newer":     func(c *Context) { c.Version++ },
		"older":     func(c *Context) { c.Version-- },
		"shifted":   func(c *Context) { c.Table, c.Row = c.Table+"c", c.Row[1:] },
		"joined":    func(c *Context) { c.Row, c.Column = c.Row+c.Column, "" },
	} {
		c := here
		change(&c)
		if got, err := Open(k, sealed, c); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("%s: opened elsewhere: %q, %v", name, got, err)
		}
	}
	if _, err := Open(NewKey(), sealed, here); !errors.Is(err, ErrOpen) {
		t.Error("another key opens it")
	}
}

func TestChangedValueDoesNotOpen(t *testing.T) {
	k := NewKey()
	sealed := Seal(k, []byte("secret"), here)
	other := Seal(k, []byte("SECRET"), here)
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1
		if _, err := Open(k, b, here); !errors.Is(err, ErrOpen) {
			t.Fatalf("byte %d changed and it opens", i)
		}
		if _, err := Open(k, sealed[:i], here); !errors.Is(err, ErrOpen) {
			t.Fatalf("cut to %d bytes and it opens", i)
		}
	}
	if _, err := Open(k, append(bytes.Clone(sealed), 0), here); !errors.Is(err, ErrOpen) {
		t.Fatal("longer and it opens")
	}
	// The wrapped key of one value with the text of another, both sealed for this very place.
	mixed := append(bytes.Clone(sealed[:headerSize+wrappedSize]), other[headerSize+wrappedSize:]...)
	if _, err := Open(k, mixed, here); !errors.Is(err, ErrOpen) {
		t.Fatal("halves of two values open")
	}
}

func TestKeysAndNonces(t *testing.T) {
	t.Run("M1 no nonce and no key comes twice", func(t *testing.T) {
		k, plain := NewKey(), []byte("the same")
		nonces, texts := map[string]bool{}, map[string]bool{}
		const n = 20_000
		for range n {
			s := Seal(k, plain, here)
			nonces[string(s[headerSize:headerSize+12])] = true
			texts[string(s[headerSize+wrappedSize:])] = true
		}
		if len(nonces) != n || len(texts) != n {
			t.Fatalf("%d seals gave %d nonces and %d texts", n, len(nonces), len(texts))
		}
		// A virtual machine set back to a snapshot may draw the same nonce again, yet under another key: the values' own keys
		// differ, so equal plaintexts share nothing.
		a, err := k.ownKey(Seal(k, plain, here))
		b, err2 := k.ownKey(Seal(k, plain, here))
		if err != nil || err2 != nil || bytes.Equal(a, b) {
			t.Fatal("two values share a key", err, err2)
		}
	})
	t.Run("M4 a rotation that stopped midway runs again", func(t *testing.T) {
		from, to := NewKey(), NewKey()
		rows := make([][]byte, 10)
		at := func(i int) Context { c := here; c.Row = fmt.Sprint(i); return c }
		for i := range rows {
			rows[i] = Seal(from, []byte(fmt.Sprint("value ", i)), at(i))
		}
		for stop := range len(rows) + 1 { // interrupted after each row in turn
			for i := range stop {
				b, err := Reseal(from, to, rows[i], at(i))
				if err != nil {
					t.Fatal(err)
				}
				rows[i] = b
			}
		}
		for i, r := range rows {
			id, err := KeyID(r)
			got, err2 := Open(to, r, at(i))
			if err != nil || err2 != nil || id != to.ID() || string(got) != fmt.Sprint("value ", i) {
				t.Fatal(i, id, err, err2)
			}
			if _, err := Open(from, r, at(i)); !errors.Is(err, ErrOpen) {
				t.Fatal("the old key still opens it")
			}
		}
		if _, err := Reseal(from, to, rows[0], at(1)); !errors.Is(err, ErrOpen) {
			t.Fatal("a moved row passes the rotation")
		}
	})
	t.Run("keys print as their id", func(t *testing.T) {
		raw := bytes.Repeat([]byte("k9"), 16)
		k, err := ParseKey(bytes.Clone(raw))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			fmt.Fprintf(&out, verb+verb+verb, k, *k, struct{ K *Key }{k})
			fmt.Fprintf(&out, verb, KEK(local{k}))
		}
		for _, form := range []string{string(raw), fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprint(raw)} {
			if strings.Contains(out.String(), form) {
				t.Fatal("the key is printed")
			}
		}
	})
	t.Run("derived keys differ by purpose and tell nothing", func(t *testing.T) {
		k := NewKey()
		a, b := k.Derive("a"), k.Derive("b")
		if bytes.Equal(a, b) || !bytes.Equal(a, k.Derive("a")) || bytes.Equal(a, k.raw()) {
			t.Fatal("derivation is wrong")
		}
	})
	t.Run("a key is 32 bytes", func(t *testing.T) {
		for _, n := range []int{0, 16, 24, 31, 33, 64} {
			if _, err := ParseKey(make([]byte, n)); err == nil {
				t.Error(n)
			}
		}
	})
}

func (k *Key) ownKey(sealed []byte) ([]byte, error) {
	b, _, err := k.openKey(sealed, here)
	return b, err
}

func TestKEKFile(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "kek.key")
	made, err := NewKEKFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKEKFile(path); !errors.Is(err, fs.ErrExist) {
		t.Fatal("an existing key is overwritten", err)
	}
	if again, _ := os.ReadFile(path); !bytes.Equal(text, again) {
		t.Fatal("the file was touched")
	}
	loaded, err := LoadKEKFile(path)
	if err != nil || loaded.ID() != made.ID() || loaded.Health(ctx) != nil {
		t.Fatal(err)
	}
	key := NewKey()
	wrapped, err := WrapKey(ctx, made, key, here)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := UnwrapKey(ctx, loaded, wrapped, here); err != nil || got.ID() != key.ID() {
		t.Fatal(err)
	}
	moved := here
	moved.Workspace = "ws_b"
	if _, err := UnwrapKey(ctx, loaded, wrapped, moved); !errors.Is(err, ErrOpen) {
		t.Fatal("a wrapped key opens in another workspace")
	}
	t.Run("M7 another installation's key opens nothing", func(t *testing.T) {
		other, err := NewKEKFile(filepath.Join(dir, "other.key"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnwrapKey(ctx, other, wrapped, here); !errors.Is(err, ErrOpen) {
			t.Fatal("it opens")
		}
	})

	b64 := base64.StdEncoding.EncodeToString
	good := strings.TrimSpace(string(text))
	for name, content := range map[string]string{
		"empty":               "",
		"a line end alone":    "\n",
		"short":               b64(bytes.Repeat([]byte{1, 2, 3}, 10)),
		"31 bytes":            b64(NewKey().raw()[:31]),
		"long":                b64(append(NewKey().raw(), 1)),
		"raw bytes":           string(NewKey().raw()),
		"32 letters":          "abcdefghijklmnopqrstuvwxyz012345",
		"ASCII in base64":     b64([]byte("correct horse battery staple 123")),
		"zeros":               b64(make([]byte, 32)),
		"a pattern":           b64(bytes.Repeat([]byte{0x80, 0x81, 0x82, 0x83}, 8)),
		"hexadecimal":         fmt.Sprintf("%x", NewKey().raw()),
		"words after the key": good + " and more",
		"two keys":            good + "\n" + good + "\n",
		"a huge file":         good + strings.Repeat("\n", 1<<20),
		"not canonical":       good[:42] + "B=",
	} {
		t.Run("M6 "+name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "k")
			if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := LoadKEKFile(p)
			if err == nil {
				t.Fatalf("accepted as %s", k.ID())
			}
			if len(content) > 8 && strings.Contains(err.Error(), content[:8]) {
				t.Fatalf("the error shows the key: %v", err)
			}
			t.Setenv("FAIRLEAD_TEST_KEK", strings.ReplaceAll(content, "\x00", ""))
			if _, err := EnvKEK("FAIRLEAD_TEST_KEK"); err == nil {
				t.Fatal("accepted from the environment")
			}
		})
	}
	t.Run("M6 missing", func(t *testing.T) {
		if _, err := LoadKEKFile(filepath.Join(dir, "none")); !IsMissing(err) {
			t.Fatal(err)
		}
		if _, err := EnvKEK("FAIRLEAD_TEST_NONE"); err == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("M6 a folder", func(t *testing.T) {
		if _, err := LoadKEKFile(dir); err == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("M6 readable by others", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Log("modes say nothing on Windows")
			return
		}
		for _, m := range []fs.FileMode{0o644, 0o640, 0o604, 0o660, 0o610, 0o601} {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadKEKFile(path); err == nil {
				t.Errorf("mode %o accepted", m)
			}
		}
		for _, m := range []fs.FileMode{0o600, 0o400} {
			if err := os.Chmod(path, m); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadKEKFile(path); err != nil {
				t.Errorf("mode %o: %v", m, err)
			}
		}
	})
	t.Run("environment", func(t *testing.T) {
		t.Setenv("FAIRLEAD_TEST_KEK", good)
		k, err := EnvKEK("FAIRLEAD_TEST_KEK")
		if err != nil || k.ID() != made.ID() {
			t.Fatal(err)
		}
		if _, ok := os.LookupEnv("FAIRLEAD_TEST_KEK"); ok {
			t.Fatal("the variable stays for child processes")
		}
	})
}

// What the database holds opens with no key but the right one, whatever is tried.
func FuzzOpen(f *testing.F) {
	k := NewKey()
	f.Add(Seal(k, []byte("seed"), Context{Workspace: "other"}))
	f.Add([]byte{format})
	f.Add(bytes.Repeat([]byte{format}, Overhead))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Open(k, b, here); !errors.Is(err, ErrOpen) || got != nil {
			t.Fatal("opened")
		}
		if id, err := KeyID(b); err == nil && len(id) != 2*idSize {
			t.Fatal(id)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	k, plain := NewKey(), make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		Seal(k, plain, here)
	}
}

func BenchmarkOpen(b *testing.B) {
	k := NewKey()
	sealed := Seal(k, make([]byte, 256), here)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Open(k, sealed, here); err != nil {
			b.Fatal(err)
		}
	}
}
