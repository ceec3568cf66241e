package dispatch

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
)

// buffers of one copy each. 64 KiB: a few TLS records, and small enough to hold for every running answer.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// answerHeaders pass from an agent's own answers. Answers of an http target pass all but the agent's and the hop's.
var answerHeaders = []string{"Content-Type", "Content-Length", "Content-Range", "Accept-Ranges", "Etag", "Last-Modified"}

// ownHeaders speak for the relay's own origin, where all targets' answers stand: a target must not set them. A cookie would
// go to every other target, would requests carry cookies.
var ownHeaders = map[string]bool{"Set-Cookie": true, "Strict-Transport-Security": true, "Content-Security-Policy": true, "X-Content-Type-Options": true,
	"Alt-Svc": true, "Clear-Site-Data": true, "Service-Worker-Allowed": true, "Public-Key-Pins": true}

// hopHeaders are for one hop (RFC 9110, 7.6.1).
var hopHeaders = map[string]bool{"Connection": true, "Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true}

// maxRetryAfter bounds what an agent's refusal may tell of when to try again: its longest budget is a day's.
const maxRetryAfter = 24 * time.Hour

// HopHeader reports whether the header k of h is for one hop only: by its name, or because Connection names it.
func HopHeader(h http.Header, k string) bool {
	if hopHeaders[k] {
		return true
	}
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(name), k) {
				return true
			}
		}
	}
	return false
}

// copyAnswer copies head and body as they come, the body as fast as the lease lets it. It flushes when the agent pauses, so that
// rows are seen early.
func copyAnswer(ctx context.Context, w http.ResponseWriter, resp *http.Response, forwarded bool, lease budget.Lease) (int64, error) {
	h := w.Header()
	if forwarded {
		for k, vs := range resp.Header {
			if !strings.HasPrefix(k, protocol.HeaderPrefix) && !HopHeader(resp.Header, k) && !ownHeaders[k] {
				h[k] = append(h[k][:0:0], vs...)
			}
		}
	} else {
		for _, k := range answerHeaders {
			if vs := resp.Header[k]; len(vs) > 0 {
				h[k] = vs
			}
		}
	}
	if rule := resp.Header.Get(protocol.HeaderRule); rule != "" {
		h.Set(protocol.HeaderRule, rule)
	}
	w.WriteHeader(resp.StatusCode)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	rc := http.NewResponseController(w)
	var n int64
	for {
		k, rerr := resp.Body.Read(*buf)
		if k > 0 {
			if lease.Waits() {
				_ = rc.SetWriteDeadline(time.Time{}) // of the write before: over HTTP/2 it would end the stream while this one waits
			}
			if err := lease.Wait(ctx, k); err != nil {
				return n, fmt.Errorf("wait for the budget: %w", err)
			}
			m, werr := w.Write((*buf)[:k])
			n += int64(m)
			if werr != nil {
				return n, fmt.Errorf("write to the caller: %w", werr)
			}
			if k < len(*buf) && rerr == nil {
				_ = rc.Flush() // a failed flush shows at the next write
			}
		}
		if rerr == io.EOF {
			return n, nil
		}
		if rerr != nil {
			return n, fmt.Errorf("read from the agent: %w", rerr)
		}
	}
}

// agentError decodes a refusal or failure that the agent answered itself; nil for an answer.
func agentError(resp *http.Response) error {
	if resp.Header.Get(protocol.HeaderOrigin) == "" {
		return nil
	}
	e := &protocol.Error{}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(e); err != nil || e.Code == "" {
		return &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginAgent, Message: "the agent's answer could not be read"}
	}
	if e.Origin != protocol.OriginTarget {
		e.Origin = protocol.OriginAgent
	}
	if !slices.Contains(protocol.Codes, e.Code) {
		e.Code = protocol.CodeUpstream // of an agent that is newer, or lies
	}
	e.RequestID = "" // ours
	e.RetryAfterMs = min(max(e.RetryAfterMs, 0), maxRetryAfter.Milliseconds())
	return e
}

// outcome reads what the agent says of the end; nil when it says nothing that we understand.
func outcome(resp *http.Response) *protocol.Outcome {
	out := &protocol.Outcome{}
	if t := resp.Trailer.Get(protocol.TrailerOutcome); t == "" || len(t) > 4<<10 || json.Unmarshal([]byte(t), out) != nil {
		return nil
	}
	if out.Code != "" && !slices.Contains(protocol.Codes, out.Code) {
		out.Code = protocol.CodeUpstream
	}
	out.Rows, out.BytesIn = max(0, out.Rows), max(0, out.BytesIn)
	return out
}

// target says what the operation is about, for the record. Query strings are left out: they may hold anything.
func target(r *protocol.Request) string {
	switch {
	case r.Operation == protocol.OpRequest:
		path, _, _ := strings.Cut(r.Target, "?")
		return r.Method + " " + path
	case r.To != "":
		return r.Path + " -> " + r.To
	}
	return r.Path
}

func contentLength(h http.Header) int64 {
	n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}
