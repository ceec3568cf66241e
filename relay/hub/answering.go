package hub

import (
	"errors"
	"net"
	"os"
	"sync/atomic"

	"github.com/fairleadhq/fairlead/internal/tunnel"
)

// answering is the stream of a request whose peer may answer before it has taken all of it. An agent that refuses an upload answers and
// closes the stream; what is written after that fails, and http.Transport then drops the answer if it sees the failure first: the caller
// was told that the tunnel was lost. So a write that fails is no news here. What became of the request, an answer or the loss of the
// stream, is for the reading side to tell, and until that has ended, the rest of the body goes nowhere.
type answering struct {
	tunnel.Stream
	lost, closed atomic.Bool
}

func (a *answering) Write(p []byte) (int, error) {
	if !a.lost.Load() {
		n, err := a.Stream.Write(p)
		if err == nil || a.closed.Load() || errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		a.lost.Store(true)
	}
	if a.closed.Load() {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

func (a *answering) Close() error {
	a.closed.Store(true)
	return a.Stream.Close()
}
