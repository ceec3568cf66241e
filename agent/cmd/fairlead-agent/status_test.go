package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
)

// enrolled makes a data folder as enroll leaves it.
func enrolled(t *testing.T, notBefore, notAfter time.Time) string {
	t.Helper()
	dir := t.TempDir()
	root := mtlstest.New(t)
	leaf := root.Workspace(t, "in_1", "ws_1").Leaf(t, mtls.Identity{Installation: "in_1", Role: mtls.RoleAgent, Workspace: "ws_1", Group: "grp_1", ID: "agt_1"}, nil,
		func(c *x509.Certificate) { c.NotBefore, c.NotAfter = notBefore, notAfter })
	if err := mtls.WriteKeypairFile(filepath.Join(dir, "identity.pem"), leaf.Keypair(t)); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"identity.json": `{"agent":"agt_1","workspace":"ws_1","group":"grp_1","installation":"in_1","relay_addresses":["relay.example.com:8443"]}`,
		"ca.pem":        string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Cert.Raw})),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func status(dir string, more ...string) (int, string) {
	var out bytes.Buffer
	code := cli.Run(cli.Program{Name: "fairlead-agent", Grammar: &struct {
		Status statusCommand `cmd:""`
	}{}}, append([]string{"status", "--data", dir}, more...), strings.NewReader(""), &out, &out)
	return code, out.String()
}

func names(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { all = append(all, p); return err })
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

func TestStatusOfARunningAgentFromFilesAlone(t *testing.T) {
	now := time.Now()
	dir := enrolled(t, now.Add(-time.Hour), now.Add(time.Hour))
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// The log stays open, and locked, as that of a running agent.
	log, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "audit"), Source: "agt_1", Key: key, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for i := range 5 {
		ticket, err := log.Append([]byte(`{"n":1}`))
		if err == nil {
			err = ticket.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			b, err := json.Marshal(log.Head())
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, "audit", "relay.cursor"), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	before := names(t, dir)
	code, out := status(dir)
	for _, want := range []string{"agt_1", "grp_1", "ws_1", "in_1", "relay.example.com:8443", "valid until", "last record    5, ", "2 records that the relay does not hold yet"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if code != 0 {
		t.Errorf("status %d", code)
	}
	var s standing
	code, out = status(dir, "-o", "json")
	if err := json.Unmarshal([]byte(out), &s); err != nil || code != 0 || s.State != "enrolled" || s.Record.LastHash != log.Head().Hash || s.Record.Sent != 3 || s.Record.Oldest != 1 {
		t.Errorf("%d %v %s", code, err, out)
	}
	if after := names(t, dir); after != before {
		t.Errorf("files were made or removed:\n%s\nwere\n%s", after, before)
	}
}

func TestStatusOfAnAgentThatCannotWork(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct{ dir, want string }{
		"not enrolled":  {t.TempDir(), "is not enrolled"},
		"expired":       {enrolled(t, now.Add(-2*time.Hour), now.Add(-time.Hour)), "EXPIRED"},
		"clock is back": {enrolled(t, now.Add(time.Hour), now.Add(2*time.Hour)), "NOT VALID before"},
	} {
		if code, out := status(c.dir); code != 78 || !strings.Contains(out, c.want) {
			t.Errorf("%s: %d %s", name, code, out)
		}
	}
	torn := enrolled(t, now.Add(-time.Hour), now.Add(time.Hour))
	if err := os.WriteFile(filepath.Join(torn, "identity.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := status(torn); code == 0 || !strings.Contains(out, "identity") {
		t.Errorf("%d %s", code, out)
	}
	if code, out := status(filepath.Join(torn, "none")); code != 64 && code != 66 {
		t.Errorf("no folder: %d %s", code, out)
	}
}

func TestStatusTellsWhereTCPDoesNotPass(t *testing.T) {
	dir := enrolled(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	file := filepath.Join(dir, "uplink.json")
	if err := os.WriteFile(file, []byte(`{"relay.example.com:443":{"transport":"websocket","since":"2026-01-02T03:04:05Z","reason":"it names issuer \u001b[31mCorp"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := status(dir); code != 0 || !strings.Contains(out, "websocket to relay.example.com:443") || !strings.Contains(out, "Corp") || strings.Contains(out, "\x1b") {
		t.Errorf("%d %q", code, out)
	}
	if _, out := status(dir, "-o", "json"); !strings.Contains(out, `"transport": "websocket"`) {
		t.Errorf("%s", out)
	}
	if err := os.WriteFile(file, []byte(`{"a.example.com:443":{"transport":"quic","since":"2026-01-02T03:04:05Z"},
		"b.example.com:443":{"transport":"tcp","since":"2026-01-02T03:04:05Z","reason":"nothing comes back over UDP","retry":"2026-01-02T03:14:05Z","failures":1}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := status(dir); code != 0 || !strings.Contains(out, "quic to a.example.com:443, which passed at") || !strings.Contains(out, "tcp to b.example.com:443, for QUIC did not pass at") ||
		!strings.Contains(out, "nothing comes back over UDP; tried again after") || strings.Contains(out, "websocket") {
		t.Errorf("%d %q", code, out)
	}
	if _, out := status(dir, "-o", "json"); !strings.Contains(out, `"quic": {`) || strings.Contains(out, `"websocket"`) {
		t.Errorf("%s", out)
	}
	// What cannot be read costs nothing: it is a hint.
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := status(dir); code != 0 || strings.Contains(out, "websocket") {
		t.Errorf("%d %q", code, out)
	}
}
