package httpapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// HeaderLength carries the Content-Length of an answer to HEAD: the stream between agent and relay is a POST, whose own
// Content-Length would promise a body.
const HeaderLength = protocol.HeaderPrefix + "Content-Length"

// Do implements connector.Connector. Whatever status the target answers is an answer; an error means that there was none.
func (a *API) Do(ctx context.Context, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	if c.Request.Operation != protocol.OpRequest {
		return protocol.Outcome{}, protocol.Errorf(protocol.CodeUnsupported, "an http profile does not know operation %s", c.Request.Operation)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.ctx, func() { cancel(errClosed) })()
	next, err := a.first(c.Request)
	if err != nil {
		return protocol.Outcome{}, err
	}
	body, length, err := a.body(c)
	if err != nil {
		return protocol.Outcome{}, err
	}
	if body != nil {
		// A body that is not read to its end must not hold the stream when the answer is done with.
		defer func() {
			if !body.ended.Load() {
				_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
			}
		}()
	}
	resp, err := a.follow(ctx, c, next, body, length)
	out := protocol.Outcome{}
	if body != nil {
		out.BytesIn = body.taken.Load()
		if body.over.Load() {
			if err == nil {
				_ = resp.Body.Close()
			}
			return out, tooLarge("the request's body", body.limit)
		}
	}
	if err != nil {
		if context.Cause(ctx) == errClosed {
			return out, errClosed
		}
		return out, fault(err)
	}
	defer resp.Body.Close()
	out.Status = resp.StatusCode
	n, err := a.answer(ctx, c, resp, w)
	out.Bytes = n
	if body != nil {
		out.BytesIn = body.taken.Load()
	}
	return out, err
}

// follow sends the request, and the ones that redirects ask for if the profile follows them.
func (a *API) follow(ctx context.Context, c *connector.Call, h *hop, body *counted, length int64) (*http.Response, error) {
	for hops := 0; ; hops++ {
		req := (&http.Request{Method: h.method, URL: h.url, Host: h.url.Host, Header: h.header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).WithContext(ctx)
		if body != nil {
			req.Body, req.ContentLength = body, length
		}
		transport := a.transport
		if !h.home {
			transport = a.elsewhere
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			_ = resp.Body.Close()
			return nil, &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: "the target changed the protocol without being asked"}
		}
		if !a.cfg.Redirects {
			return resp, nil
		}
		next, err := a.next(c, h, resp, body != nil)
		if err == nil && next != nil && hops == maxHops {
			err = &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: fmt.Sprintf("the target redirects more than %d times", maxHops)}
		}
		if err != nil || next != nil {
			_ = resp.Body.Close()
		}
		if err != nil {
			return nil, err
		}
		if next == nil {
			return resp, nil
		}
		h, body, length = next, nil, 0
	}
}

// next builds the request that a redirect asks for, or gives nil when the answer is to be passed on: it is no redirect, or
// one that wants the body again, which is gone.
func (a *API) next(c *connector.Call, h *hop, resp *http.Response, hadBody bool) (*hop, error) {
	location := resp.Header.Get("Location")
	method := h.method
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther:
		if method != http.MethodGet && method != http.MethodHead {
			method = http.MethodGet
		}
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if hadBody {
			return nil, nil
		}
	default:
		return nil, nil
	}
	if location == "" {
		return nil, nil
	}
	refuse := func(why string) (*hop, error) {
		return nil, &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: "the target redirects to where the site does not allow",
			Rule: "http." + a.cfg.Name + ".redirects", Cause: errors.New(why)}
	}
	ref, err := url.Parse(location)
	if err != nil {
		return refuse("the location is malformed")
	}
	u := h.url.ResolveReference(ref)
	u.Fragment, u.RawFragment = "", ""
	switch {
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.User != nil, u.Opaque != "":
		return refuse("the location is no plain http URL")
	case h.url.Scheme == "https" && u.Scheme != "https":
		return refuse("the location leaves TLS")
	}
	n := &hop{method: method, url: u, header: h.header.Clone(), home: origin(u) == origin(a.base)}
	if method != h.method {
		n.header.Del("Content-Type")
		n.header.Del("Content-Encoding")
	}
	if !n.home {
		if a.elsewhere == nil {
			return refuse("the location is at another origin")
		}
		a.strip(n.header)
		return n, nil // ElsewhereDial decides host and port
	}
	if !h.home {
		return refuse("the location leads back from another origin")
	}
	target, ok := strings.CutPrefix(u.EscapedPath(), a.base.EscapedPath())
	if !ok || !strings.HasPrefix(target, "/") {
		return refuse("the location is outside the base path")
	}
	if u.RawQuery != "" || u.ForceQuery {
		target += "?" + u.RawQuery
	}
	again := *c.Request
	again.Method, again.Target = method, target
	if d := a.cfg.Decide(policy.Operation{Request: &again}); !d.Allow {
		return refuse(d.Rule + ": " + d.Reason)
	}
	// Built anew from the checked target, as the first one was.
	return a.first(&again)
}

// origin is scheme, host and port in one form.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) + ":" + port
}

var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// answer passes the target's answer on.
func (a *API) answer(ctx context.Context, c *connector.Call, resp *http.Response, w http.ResponseWriter) (sent int64, err error) {
	limit := lower(a.cfg.MaxAnswerBytes, c.Decision.Limits.MaxBytes)
	head := c.Request.Method == http.MethodHead
	if limit > 0 && resp.ContentLength > limit && !head {
		return 0, tooLarge("the answer", limit)
	}
	h := w.Header()
	answerHeader(h, resp.Header)
	if head {
		if v := h.Get("Content-Length"); v != "" {
			h.Set(HeaderLength, v)
		}
		h.Del("Content-Length")
	}
	control := http.NewResponseController(w)
	defer context.AfterFunc(ctx, func() { _ = control.SetWriteDeadline(time.Unix(1, 0)) })()
	w.WriteHeader(resp.StatusCode)
	live := resp.ContentLength < 0 // events and the like: nothing may wait for a buffer to fill
	if live {
		_ = control.Flush()
	}
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, rerr := resp.Body.Read(buf[:])
		if n > 0 {
			if limit > 0 && sent+int64(n) > limit {
				return sent, tooLarge("the answer", limit)
			}
			m, werr := w.Write(buf[:n])
			sent += int64(m)
			if werr != nil {
				return sent, werr
			}
			if live {
				_ = control.Flush()
			}
		}
		if rerr == io.EOF {
			break
		}
		if rerr != nil {
			if ctx.Err() != nil {
				return sent, context.Cause(ctx)
			}
			return sent, &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: "the target broke off in the middle of its answer", Cause: rerr}
		}
	}
	for k, vs := range resp.Trailer {
		if !dropped(k) {
			h[http.TrailerPrefix+k] = vs
		}
	}
	return sent, nil
}

func tooLarge(what string, limit int64) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginAgent, Message: fmt.Sprintf("%s is larger than the %d bytes that are allowed", what, limit)}
}

// lower is the smaller of two limits of which 0 means none.
func lower(a, b int64) int64 {
	if a <= 0 || b > 0 && b < a {
		return b
	}
	return a
}

// counted is a request's body on its way to the target.
type counted struct {
	r     io.Reader
	limit int64
	taken atomic.Int64
	over  atomic.Bool
	ended atomic.Bool
}

// body gives the body to pass on, nil when there is none, and its length, -1 when that is not known. One byte is read
// ahead, so that a request without a body does not go out as a chunked one with an empty body.
func (a *API) body(c *connector.Call) (*counted, int64, error) {
	if c.Body == nil || c.Body == http.NoBody {
		return nil, 0, nil
	}
	limit := lower(a.cfg.MaxBodyBytes, c.Decision.Limits.MaxSize)
	length := int64(-1)
	if n, err := strconv.ParseInt(c.Request.Header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		length = n
	}
	if limit > 0 && length > limit {
		return nil, 0, tooLarge("the request's body", limit)
	}
	if length == 0 {
		return nil, 0, nil
	}
	var one [1]byte
	switch _, err := io.ReadFull(c.Body, one[:]); {
	case err == io.EOF:
		return nil, 0, nil
	case err != nil:
		return nil, 0, &protocol.Error{Code: protocol.CodeInterrupted, Origin: protocol.OriginAgent, Message: "the request ended before its end", Cause: err}
	}
	return &counted{r: io.MultiReader(bytes.NewReader(one[:]), c.Body), limit: limit}, length, nil
}

func (b *counted) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if b.limit > 0 && b.taken.Load()+int64(n) > b.limit {
		b.over.Store(true)
		return 0, tooLarge("the request's body", b.limit)
	}
	b.taken.Add(int64(n))
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// Close is the transport's; the stream's own body is closed by its server.
func (b *counted) Close() error { return nil }
