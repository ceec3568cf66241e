package tunnel

import (
	"context"
	"io"
	"net"
	"testing"
	"time"
)

// upgradedPair is a tunnel over a plain conn, whose first bytes were read ahead on one side.
func upgradedPair(t *testing.T) (client, server Tunnel) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if client, err = Upgraded(a, nil, true, Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s, err := client.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(s, "early"); err != nil {
		t.Fatal(err)
	}
	early := make([]byte, 5) // a part of a frame's header
	if _, err := io.ReadFull(b, early); err != nil {
		t.Fatal(err)
	}
	if server, err = Upgraded(b, early, false, Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	in, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "early" {
		t.Fatalf("%q, %v", got, err)
	}
	_ = in.CloseWrite()
	if _, err := s.Read(got); err != io.EOF {
		t.Fatalf("half-close: %v", err)
	}
	s.Close()
	in.Close()
	return client, server
}

// A tunnel on an upgraded conn is a tunnel as any other: streams both ways, a round trip, no identity, and an end that both see.
func TestUpgradedConnIsATunnel(t *testing.T) {
	client, server := upgradedPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := client.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	if client.PeerCertificate() != nil || client.Peer().ID != "" || server.Peer().ID != "" {
		t.Error("a peer was made up")
	}
	s, err := client.Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	in, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a cut stream reads as ended: %v", err)
	}
	if _, err := in.Write([]byte("x")); err == nil {
		t.Error("a stream of a closed tunnel takes bytes")
	}
	select {
	case <-client.Done():
	case <-ctx.Done():
		t.Fatal("the end is not seen")
	}
}
