package hub_test

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/hub"
)

// P21: an agent that answers a dial with headers without end must not fill the relay's memory.
func TestHeadOfADialsAnswerIsBounded(t *testing.T) {
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: "ws_x", Group: "g", ID: "a"},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, tunnel.DefaultConfig())
	defer site.Close()
	defer relay.Close()
	sent := make(chan int, 1)
	go func() {
		n := 0
		defer func() { sent <- n }()
		s, err := site.Accept()
		if err != nil {
			return
		}
		defer s.Close()
		_, _ = io.WriteString(s, "HTTP/1.1 101 Switching Protocols\r\n")
		line := append([]byte("X-A: "), bytes.Repeat([]byte("b"), 8<<10)...)
		for line = append(line, "\r\n"...); n < 64<<20; {
			k, err := s.Write(line)
			if n += k; err != nil {
				return
			}
		}
	}()
	l := hub.New(hub.Config{}).Add(relay, protocol.Hello{})
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://agent/v1/tcp/x/dial", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := l.Dial(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Answer(); err == nil {
		t.Error("an endless head was taken")
	}
	select {
	case n := <-sent:
		if n >= 64<<20 {
			t.Errorf("%d bytes of head were read", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("the stream was not cut")
	}
}

// When several tunnels come at once, each that is too many ends one that is older.
func TestTooManyTunnelsEndTheOldestEach(t *testing.T) {
	hb := hub.New(hub.Config{MaxTunnelsPerAgent: 2})
	var all []tunnel.Tunnel
	for range 5 { // none is removed meanwhile: their ends are slow
		_, tn := join(t, hb, "agt_a", "grp_a", nil, say(""))
		all = append(all, tn)
	}
	for i, tn := range all {
		select {
		case <-tn.Done():
			if i >= 3 {
				t.Errorf("tunnel %d was ended", i)
			}
		case <-time.After(map[bool]time.Duration{true: 5 * time.Second, false: 50 * time.Millisecond}[i < 3]):
			if i < 3 {
				t.Errorf("tunnel %d stands", i)
			}
		}
	}
}
