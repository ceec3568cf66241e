package hub_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairleadhq/fairlead/internal/mtls/mtlstest"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// A lane whose road swallows what the relay sends ends with its stream. The tunnel lives, as does what runs on it, another lane is
// asked for, and the next heavy request goes by it.
func TestLaneWithADeadRoadCostsItsStreamAlone(t *testing.T) {
	s := newLaneSite(t, 8)
	s.cfg.LaneSilence = time.Second
	lane, err := s.dial(mtlstest.Agent, s.want())
	if err != nil {
		t.Fatal(err)
	}
	for len(s.tickets) > 0 {
		<-s.tickets
	}
	raw, err := s.socket.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}} // the kernel drops what comes before TCP sees it
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	}); e != nil || err != nil {
		t.Fatal(e, err)
	}
	// One that goes by the tunnel, all the while.
	body, beside := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://agent/", body)
	if err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	go func() {
		resp, err := s.live.Do(req)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		other <- err
	}()
	if _, err := beside.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	heavy, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://agent/v1/files/in/read", io.NopCloser(&zeros{64 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := s.live.Do(heavy); err == nil {
		resp.Body.Close()
		t.Fatal("an answer came over a road that carries nothing")
	} else if e := protocol.AsError(err); e.Code != protocol.CodeInterrupted {
		t.Errorf("the request was told %v", err)
	}
	if _, err := beside.Write([]byte("x")); err != nil {
		t.Errorf("the request beside it: %v", err)
	}
	beside.Close()
	if err := <-other; err != nil {
		t.Errorf("the request beside it: %v", err)
	}
	if _, err := get(t, s.live, t.Context()); err != nil {
		t.Errorf("the tunnel: %v", err)
	}
	if n := lanesOf(s); n != 0 {
		t.Errorf("%d lanes are left", n)
	}
	lane.Close()
	var ticket []byte
	select {
	case ticket = <-s.tickets:
	case <-time.After(10 * time.Second):
		t.Fatal("no lane is asked for in its place")
	}
	next, err := s.dial(mtlstest.Agent, ticket)
	if err != nil {
		t.Fatal(err)
	}
	used := make(chan int64, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(w, r.Body)
		used <- n
	})}
	srv.SetKeepAlivesEnabled(false)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(tunnel.NewListener(next)) }()
	defer func() { srv.Close(); next.Close(); <-done }()
	s.read(1 << 20)
	if n := <-used; n != 1<<20 {
		t.Errorf("%d bytes by the new lane", n)
	}
}
