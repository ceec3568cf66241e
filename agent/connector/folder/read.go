package folder

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

// buffers are lent for the time of one transfer.
var buffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// stat answers the facts of one file or folder; with an upload id also how far that upload has got, even while the file
// itself does not exist.
func (f *Folder) stat(root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	p, err := locate(root, r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer p.dir.Close()
	info := protocol.FileInfo{Path: r.Path}
	st, err := p.info()
	switch {
	case err == nil:
		if err := f.allowed(c.Decision.Match, r.Path, st.IsDir()); err != nil {
			return protocol.Outcome{}, err
		}
		if err := f.soleLink(p, st, false); err != nil {
			return protocol.Outcome{}, err
		}
		info = fileInfo(r.Path, st)
	case absent(err) && r.Upload != "":
		if err := f.allowed(c.Decision.Match, r.Path, false); err != nil {
			return protocol.Outcome{}, err
		}
	default:
		return protocol.Outcome{}, f.hide(c.Decision.Match, r.Path, err)
	}
	if r.Upload != "" {
		n, err := p.uploaded(r.Upload)
		if err != nil {
			return protocol.Outcome{}, err
		}
		info.Uploaded = &n
	}
	if info.ETag != "" {
		w.Header().Set("ETag", info.ETag)
	}
	return answer(w, http.StatusOK, info)
}

// hide keeps the absence of a path that the site's globs do not admit from being told.
func (f *Folder) hide(m *policy.Globs, path string, err error) error {
	if absent(err) && !visible(m, path, false) && !visible(m, path, true) {
		return f.allowed(m, path, false)
	}
	return err
}

// read answers a file's bytes: the whole, or what a Range asks for (RFC 9110, 14), with a strong ETag, and 304 or
// precondition by If-None-Match, If-Match and If-Range.
func (f *Folder) read(ctx context.Context, root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	if err := f.allowed(c.Decision.Match, r.Path, false); err != nil {
		return protocol.Outcome{}, err
	}
	p, err := locate(root, r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer p.dir.Close()
	file, st, err := p.openFile(os.O_RDONLY)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer file.Close()
	if err := f.soleLink(p, st, false); err != nil {
		return protocol.Outcome{}, err
	}
	if limit := f.limit(c); limit > 0 && st.Size() > limit {
		return protocol.Outcome{}, tooLarge(limit)
	}
	h := w.Header()
	h.Set("ETag", etag(st))
	h.Set("Content-Type", "application/octet-stream") // never guessed: a guess could make a browser run it
	h.Set("X-Content-Type-Options", "nosniff")
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return protocol.Outcome{}, fmt.Errorf("make request: %w", err)
	}
	for _, k := range []string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if v := r.Header[k]; len(v) > 0 {
			req.Header[k] = v
		}
	}
	a := &reply{ResponseWriter: w, ctx: ctx, maxBytes: c.Decision.Limits.MaxBytes, want: -1}
	defer context.AfterFunc(ctx, a.cut)()
	http.ServeContent(a, req, "", st.ModTime(), file)
	out := protocol.Outcome{Bytes: a.sent, Status: a.status}
	switch {
	case a.err != nil:
		return out, a.err
	case ctx.Err() != nil:
		return out, ctx.Err()
	case a.want >= 0 && a.sent != a.want:
		return out, &protocol.Error{Code: protocol.CodeInterrupted, Origin: protocol.OriginTarget, Message: "the file became shorter while it was read"}
	}
	return out, nil
}

func tooLarge(limit int64) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginAgent, Message: "the file is larger than the " + strconv.FormatInt(limit, 10) + " bytes that this profile allows"}
}

// reply passes on what ServeContent answers, and turns its refusals into errors.
type reply struct {
	http.ResponseWriter
	ctx      context.Context
	maxBytes int64

	status int
	want   int64 // what Content-Length promised; -1 when nothing was
	sent   int64
	err    error
	begun  atomic.Bool
}

func (a *reply) WriteHeader(status int) {
	if a.status != 0 {
		return
	}
	a.status = status
	h := a.Header()
	if n, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64); err == nil {
		a.want = n
	}
	switch {
	case status == http.StatusRequestedRangeNotSatisfiable:
		a.err = &protocol.Error{Code: protocol.CodeRange, Origin: protocol.OriginAgent, Message: "the range is outside the file or malformed", Detail: h.Get("Content-Range")}
	case status == http.StatusPreconditionFailed:
		a.err = errPrecondition
	case status >= 400:
		a.err = &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: "the file cannot be read"}
	case a.maxBytes > 0 && a.want > a.maxBytes:
		a.err = &protocol.Error{Code: protocol.CodeTooLarge, Origin: protocol.OriginAgent, Message: "the answer is larger than the " + strconv.FormatInt(a.maxBytes, 10) + " bytes that are allowed",
			Hint: "ask for a range"}
	default:
		a.begun.Store(true)
		a.ResponseWriter.WriteHeader(status)
	}
}

func (a *reply) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	if a.err == nil {
		a.err = a.ctx.Err()
	}
	if a.err != nil {
		return 0, a.err
	}
	n, err := a.ResponseWriter.Write(p)
	a.sent += int64(n)
	if err != nil {
		a.err = err
	}
	return n, err
}

// ReadFrom copies through a lent buffer. The stream below is never a plain TCP socket, so there is nothing to splice.
func (a *reply) ReadFrom(src io.Reader) (int64, error) {
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	var total int64
	for {
		n, err := src.Read(buf[:])
		if n > 0 {
			m, werr := a.Write(buf[:n])
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			if a.err == nil {
				a.err = err
			}
			return total, err
		}
	}
}

// cut wakes a Write that waits for a peer who takes nothing. Before the first byte there is none, and an error has yet
// to be answered.
func (a *reply) cut() {
	if a.begun.Load() {
		_ = http.NewResponseController(a.ResponseWriter).SetWriteDeadline(time.Unix(1, 0))
	}
}
