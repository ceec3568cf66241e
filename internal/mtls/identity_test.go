package mtls_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
)

func TestParseIdentity(t *testing.T) {
	for _, i := range []mtls.Identity{mtlstest.Agent, mtlstest.Relay} {
		u, err := url.Parse(i.String())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := mtls.ParseIdentity(u); err != nil || got != i {
			t.Errorf("%s: %v, %v", i, got, err)
		}
	}
	for _, s := range badIdentities {
		u, err := url.Parse(s)
		if err != nil {
			continue
		}
		if i, err := mtls.ParseIdentity(u); err == nil {
			t.Errorf("%s was taken for %v", s, i)
		}
	}
	if _, err := mtls.ParseIdentity(nil); err == nil {
		t.Error("nil was taken")
	}
}

var badIdentities = []string{
	"", "/", "fairlead:", "fairlead://", "fairlead://in", "fairlead://in/", "fairlead://in/relay", "fairlead://in/relay/", "fairlead:///relay/r",
	"fairlead://in/relay/r/", "fairlead://in//relay/r", "fairlead://in/relay//r", "fairlead://in/relay/r/x", "fairlead://in/RELAY/r",
	"fairlead://IN/relay/r", "fairlead://in/relay/R", "FAIRLEAD://in/relay/R", "https://in/relay/r", "fairlead:in/relay/r",
	"fairlead://u@in/relay/r", "fairlead://u:p@in/relay/r", "fairlead://in:1/relay/r", "fairlead://in:/relay/r", "fairlead://in/relay/r?", "fairlead://in/relay/r?a=b",
	"fairlead://in/relay/r#f", "fairlead://in/relay/%72", "fairlead://in/relay%2fr", "fairlead://i%6e/relay/r",
	"fairlead://in/relay/..", "fairlead://in/relay/r%00", "fairlead://in/relay/ü", "fairlead://in.example/relay/r", "fairlead://[::1]/relay/r",
	"fairlead://in/ws/w/group/g/agent", "fairlead://in/ws/w/group/g/agent/", "fairlead://in/ws//group/g/agent/a", "fairlead://in/ws/w/group//agent/a",
	"fairlead://in/ws/w/agent/a", "fairlead://in/ws/w/group/g/agent/a/relay/r", "fairlead://in/ws/w%2fgroup%2fg/group/g/agent/a",
	"fairlead://in/relay/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
}

func FuzzParseIdentity(f *testing.F) {
	for _, s := range append(badIdentities, mtlstest.Agent.String(), mtlstest.Relay.String()) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.Parse(s)
		if err != nil {
			return
		}
		i, err := mtls.ParseIdentity(u)
		if err != nil {
			return
		}
		if i.String() != s && u.String() != i.String() {
			t.Fatalf("%q was taken for %q", s, i)
		}
		if err := i.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestKeypairFile(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "agent.pem")
	if _, err := mtls.ReadKeypairFile(path); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("got %v", err)
	}
	for _, c := range []*mtlstest.Cert{s.agent, s.relay} { // the second replaces the first
		if err := mtls.WriteKeypairFile(path, c.Keypair(t)); err != nil {
			t.Fatal(err)
		}
		k, err := mtls.ReadKeypairFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Leaf().Equal(c.Cert) || len(k.Chain()) != 1+len(c.Above) {
			t.Fatal("another chain")
		}
		if root, err := k.Root(); err != nil || !root.Equal(s.root.Cert) {
			t.Fatal("another root", err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
	if runtime.GOOS != "windows" {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Fatalf("mode %v, %v", st.Mode(), err)
		}
		for _, mode := range []os.FileMode{0o640, 0o604, 0o660, 0o602, 0o644} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := mtls.ReadKeypairFile(path); err == nil {
				t.Errorf("mode %o was taken", mode)
			}
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := mtls.ReadKeypairFile(filepath.Dir(path)); err == nil {
			t.Error("a folder was taken")
		}
	}
	// D14: a file that holds the key of one and the certificate of another, or half of it, is refused.
	whole, err := s.agent.Keypair(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	otherText, err := s.relay.Keypair(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mtls.ParseKeypair(whole, otherText); err == nil {
		t.Error("D14 key and certificate of different pairs were taken")
	}
	for n := range whole {
		if k, err := mtls.ParseKeypair(whole[:n], whole[:n]); err == nil && n < len(whole)-1 {
			t.Fatalf("D14 %d of %d bytes gave %v", n, len(whole), k.Leaf().Subject)
		}
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 300<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mtls.ReadKeypairFile(path); err == nil {
		t.Error("a huge file was taken")
	}
}

func TestReloader(t *testing.T) {
	s := newSite(t)
	r := s.agent.Reloader(t)
	seen := make(chan *x509.Certificate, 1)
	server := mtls.TunnelTLS(s.relay.Reloader(t), s.root.Pool(), "in_test", func(_ mtls.Identity, c *x509.Certificate) error {
		seen <- c
		return nil
	})
	client := mtls.AgentTLS(r, s.root.Pool(), "in_test")
	for _, c := range []*mtlstest.Cert{s.agent, s.workspace.Leaf(t, mtlstest.Agent, nil)} {
		r.Set(c.Keypair(t))
		if ce, se := meet(t, client, server); ce != nil || se != nil {
			t.Fatal(ce, se)
		}
		if !(<-seen).Equal(c.Cert) {
			t.Error("the older certificate was shown")
		}
	}
	r.Set(nil)
	if ce, se := meet(t, client, server); ce == nil || se == nil {
		t.Error("a handshake without certificate went well")
	}
}

func TestEd25519Keypair(t *testing.T) {
	s := newSite(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := s.workspace.Leaf(t, mtlstest.Agent, key)
	text, err := c.Keypair(t).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	k, err := mtls.ParseKeypair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	if ce, se := meet(t, mtls.AgentTLS(mtls.NewReloader(k), s.root.Pool(), "in_test"), s.server(t, s.relay)); ce != nil || se != nil {
		t.Fatal(ce, se)
	}
}
