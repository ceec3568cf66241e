package relay

import (
	"context"
	"net"
	"os"
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

// A list of leaked passwords that is none, or not there, is told at the start, not when somebody chooses a password.
func TestListOfLeakedPasswordsMustBeOne(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).close()
	file := filepath.Join(dir, "relay.yaml")
	yaml, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(yaml, "sign_in: {leaked_passwords: leaked.txt}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, good := range map[string]bool{"": false, "password\n": false, strings.Repeat("0", 39) + "1:7\n" + strings.Repeat("F", 40) + ":1\n": true} {
		if text != "" {
			if err := os.WriteFile(filepath.Join(dir, "leaked.txt"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			_ = os.Remove(filepath.Join(dir, "leaked.txt"))
		}
		cfg, err := LoadConfig(file)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listen = "127.0.0.1:0"
		r, err := New(context.Background(), Options{Config: cfg})
		if (err == nil) != good || err != nil && !strings.Contains(err.Error(), "sign_in.leaked_passwords") {
			t.Errorf("%q: %v", text, err)
		}
		if r != nil {
			if err := r.close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// The same of the UDP port beside it. Whoever has not asked for QUIC does not need it.
func TestUDPPortInUseIsTold(t *testing.T) {
	dir := t.TempDir()
	open(t, dir).close()
	var ln net.Listener
	var sock *net.UDPConn
	for sock == nil {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: ln.Addr().(*net.TCPAddr).Port}); err == nil {
			sock = s
			defer s.Close()
		}
	}
	cfg, err := LoadConfig(filepath.Join(dir, "relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Agents.QUIC {
		t.Error("QUIC is on by default")
	}
	ln.Close()
	cfg.Listen, cfg.Agents.QUIC = ln.Addr().String(), true
	if _, err := New(context.Background(), Options{Config: cfg}); err == nil || !strings.Contains(err.Error(), "listen on UDP "+cfg.Listen) || !strings.Contains(err.Error(), "agents.quic: false") {
		t.Fatalf("want the address and the setting in the error: %v", err)
	}
	cfg.Agents.QUIC = false
	r, err := New(context.Background(), Options{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.close(); err != nil {
		t.Fatal(err)
	}
}
