package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// problemTime bounds the writing of a refusal to a caller whose conn was taken over.
const problemTime = 10 * time.Second

// upgrading is a caller's dial whose first bytes are on their way to the agent while the answer is not known yet. The caller is
// told by 101, or by a problem as in any other request.
type upgrading struct {
	conn     net.Conn
	raw      *dispatch.Raw
	first    []byte      // what the caller sent with his request
	switched atomic.Bool // the caller has its 101
}

// upgrade takes the caller's conn over; whoever calls it closes it. nil: it could not, and that is logged.
func (a *API) upgrade(w http.ResponseWriter, raw *dispatch.Raw) *upgrading {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		a.cfg.Logger.Error("hijack for dial", "error", err)
		return nil
	}
	_ = conn.SetDeadline(time.Time{}) // the server's own
	first := make([]byte, buf.Reader.Buffered())
	_, _ = io.ReadFull(buf.Reader, first)
	return &upgrading{conn: conn, raw: raw, first: first}
}

// serve copies both ways until both sides are done. The caller's conn stays open.
func (u *upgrading) serve(ctx context.Context) (in, out int64) {
	if len(u.first) > 0 {
		if _, err := u.raw.Write(u.first); err != nil {
			return 0, 0
		}
	}
	in, out = splice.Both(ctx, callerSide{u.conn, u}, agentSide{u.raw, u})
	return in + int64(len(u.first)), out
}

// refuse answers the caller, who has not been told anything, with a problem.
func (u *upgrading) refuse(a *API, r *http.Request, err error) {
	if u.switched.Load() {
		return
	}
	resp := http.Response{ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Close: true}
	status, body := a.problem(resp.Header, r, 0, err)
	resp.StatusCode, resp.ContentLength, resp.Body = status, int64(len(body)), io.NopCloser(bytes.NewReader(body))
	_ = u.conn.SetDeadline(time.Now().Add(problemTime))
	if err := resp.Write(u.conn); err != nil {
		a.cfg.Logger.Debug("a refusal did not reach the caller", "request_id", requestID(r.Context()), "error", err)
	}
}

// callerSide is the conn without its end: a refusal may still have to be written to it.
type callerSide struct {
	net.Conn
	u *upgrading
}

var errGone = errors.New("the caller ended its bytes before it was answered")

// Read takes an end before the 101 for a caller who has gone, as net/http does: a client that only has no more to say waits
// with that until then.
func (c callerSide) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF && !c.u.switched.Load() {
		err = errGone
	}
	return n, err
}

// Close ends what is done on the conn.
func (c callerSide) Close() error { return c.SetDeadline(time.Unix(1, 0)) }

func (c callerSide) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return http.ErrNotSupported
}

// agentSide is the stream, before whose first byte the caller gets its 101.
type agentSide struct {
	*dispatch.Raw
	u *upgrading
}

func (s agentSide) Read(p []byte) (int, error) {
	if !s.u.switched.Load() {
		if err := s.Admitted(); err != nil {
			return 0, err
		}
		s.u.switched.Store(true)
		if _, err := io.WriteString(s.u.conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\n"); err != nil {
			return 0, err
		}
	}
	return s.Raw.Read(p)
}
