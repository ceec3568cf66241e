package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/fairleadhq/fairlead/protocol"
)

// AuditQuery picks events. Zero values do not narrow.
type AuditQuery struct {
	After  uint64 // only events with a higher sequence number; 0 with a Limit: the newest events, unless Oldest is set
	Oldest bool   // After counts although it is 0: begin with the oldest event that is held
	Limit  int
	Kind   string
	Follow bool // wait for further events; ends with the context
}

func (q AuditQuery) values() url.Values {
	v := url.Values{}
	if q.After != 0 || q.Oldest {
		v.Set("after", strconv.FormatUint(q.After, 10))
	}
	if q.Limit != 0 {
		v.Set("limit", strconv.Itoa(q.Limit))
	}
	if q.Kind != "" {
		v.Set("kind", q.Kind)
	}
	if q.Follow {
		v.Set("follow", "true")
	}
	return v
}

// AuditEvents gives decoded events in the order of the log. The sequence ends after the last one or with an error.
func (c *Client) AuditEvents(ctx context.Context, q AuditQuery) iter.Seq2[AuditEvent, error] {
	return func(yield func(AuditEvent, error) bool) {
		body, err := c.stream(ctx, c.ws("audit", "events"), q.values())
		if err != nil {
			yield(AuditEvent{}, err)
			return
		}
		defer body.Close()
		lines := bufio.NewReaderSize(body, 64<<10)
		var line []byte
		for {
			line, err = readLine(lines, line[:0])
			if errors.Is(err, io.EOF) && ctx.Err() == nil {
				return
			}
			if err != nil {
				yield(AuditEvent{}, c.cut(ctx, err))
				return
			}
			if len(line) == 0 { // a heartbeat of a followed stream
				continue
			}
			var e AuditEvent
			if err := json.Unmarshal(line, &e); err != nil {
				yield(AuditEvent{}, &protocol.Error{Code: protocol.CodeInternal, Message: "the relay sent an event that is not JSON", Cause: err})
				return
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}

// AuditLog gives the raw lines of the chain after a sequence number, at most limit of them (0: the relay's own limit).
// The caller closes it.
func (c *Client) AuditLog(ctx context.Context, after uint64, limit int) (io.ReadCloser, error) {
	return c.stream(ctx, c.ws("audit", "log"), AuditQuery{After: after, Limit: limit}.values())
}

// AuditCheckpoints gives the signed checkpoints, one JSON object a line. The caller closes it.
func (c *Client) AuditCheckpoints(ctx context.Context) (io.ReadCloser, error) {
	return c.stream(ctx, c.ws("audit", "checkpoints"), nil)
}

// AuditKey gives the public key that the checkpoints are signed with. To prove anything, compare it with one that was
// got earlier or another way.
func (c *Client) AuditKey(ctx context.Context) (AuditKey, error) {
	var k AuditKey
	return k, c.do(ctx, http.MethodGet, c.ws("audit", "key"), nil, nil, &k)
}

func (c *Client) stream(ctx context.Context, escaped string, q url.Values) (io.ReadCloser, error) {
	resp, err := c.send(ctx, call{
		method: http.MethodGet, escaped: escaped, query: q, header: http.Header{"Accept": {protocol.ContentNDJSON + ", " + ContentProblem}},
	})
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
