package relay

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// A port in use, or any other fault on the way up, is told. Nothing stays open: the same folder serves afterwards.
func TestPortInUseIsToldAndLeavesNothingOpen(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	cfg, err := LoadConfig(filepath.Join(dir, "relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	cfg.Listen = ln.Addr().String()
	if _, err := New(context.Background(), Options{Config: cfg}); err == nil || !strings.Contains(err.Error(), "listen on "+cfg.Listen) {
		t.Fatalf("want the address in the error: %v", err)
	}
	if err := open(t, dir).close(); err != nil {
		t.Fatal(err)
	}
}
