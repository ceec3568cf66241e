package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// maxTries is how often in a row a transfer is taken up again without a byte of progress; pause the wait before each.
const maxTries = 5

func pause(try int) time.Duration { return time.Duration(try) * 500 * time.Millisecond }

// ListOptions picks the entries of a folder. Path "" is the profile's base.
type ListOptions struct {
	Path      string
	Recursive bool
	Glob      string
	PageSize  int
}

// Files lists a folder, page by page as it is consumed.
func (c *Client) Files(ctx context.Context, connection string, o ListOptions) iter.Seq2[protocol.FileInfo, error] {
	return func(yield func(protocol.FileInfo, error) bool) {
		q := url.Values{"path": {o.Path}}
		if o.Recursive {
			q.Set("recursive", "true")
		}
		if o.Glob != "" {
			q.Set("glob", o.Glob)
		}
		if o.PageSize != 0 {
			q.Set("page_size", strconv.Itoa(o.PageSize))
		}
		for {
			var page protocol.FileList
			if err := c.doLong(ctx, http.MethodGet, c.conn(connection, "list"), q, nil, &page); err != nil {
				yield(protocol.FileInfo{}, err)
				return
			}
			for _, f := range page.Files {
				if !yield(f, nil) {
					return
				}
			}
			if page.Cursor == "" {
				return
			}
			if page.Cursor == q.Get("cursor") {
				yield(protocol.FileInfo{}, protocol.Errorf(protocol.CodeInternal, "the site's list does not end"))
				return
			}
			q.Set("cursor", page.Cursor)
		}
	}
}

// Stat tells of one file or folder. With an upload id it also says how many bytes that upload holds.
func (c *Client) Stat(ctx context.Context, connection, path, upload string) (protocol.FileInfo, error) {
	q := url.Values{"path": {path}}
	if upload != "" {
		q.Set("upload", upload)
	}
	var f protocol.FileInfo
	return f, c.doLong(ctx, http.MethodGet, c.conn(connection, "stat"), q, nil, &f)
}

// Move renames inside the profile. Without overwrite an existing destination is refused.
func (c *Client) Move(ctx context.Context, connection string, m MoveRequest) error {
	return c.doLong(ctx, http.MethodPost, c.conn(connection, "move"), nil, m, nil)
}

// Mkdir makes a folder.
func (c *Client) Mkdir(ctx context.Context, connection, path string) error {
	return c.doLong(ctx, http.MethodPost, c.conn(connection, "mkdir"), nil, MkdirRequest{Path: path}, nil)
}

// Delete removes a file or an empty folder. ifMatch "" deletes whatever version is there.
func (c *Client) Delete(ctx context.Context, connection, path, ifMatch string) error {
	escaped, err := c.filePath(connection, path)
	if err != nil {
		return err
	}
	h := http.Header{}
	if ifMatch != "" {
		h.Set("If-Match", ifMatch)
	}
	resp, err := c.send(ctx, call{method: http.MethodDelete, escaped: escaped, header: h})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// filePath escapes a path segment by segment. Segments that a server would take for something else are refused here.
func (c *Client) filePath(connection, path string) (string, error) {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if s == "" || s == "." || s == ".." {
			return "", &protocol.Error{
				Code: protocol.CodeInvalid, Message: fmt.Sprintf("path %q is malformed", path),
				Hint: `want segments with "/" between them, relative to the profile's folder, without "." and ".."`,
			}
		}
		segments[i] = url.PathEscape(s)
	}
	return c.conn(connection, "files") + "/" + strings.Join(segments, "/"), nil
}

// GetOptions says where to begin. Offset > 0 wants the ETag of the version that the first bytes are of; if the file is
// another one by now, the whole of it is given (File.Offset is 0 then).
type GetOptions struct {
	Offset int64
	ETag   string
}

// A File is a file's content as it arrives. Read takes a lost connection up again where it broke, as long as the file at
// the site is the same version; a file that changed meanwhile is a CodeConflict. Not for concurrent use. Close it.
type File struct {
	Offset int64 // of the first byte that Read gives
	Size   int64 // of the whole file; -1 when the site did not say
	ETag   string
	Time   time.Time // last change; zero when the site did not say

	ctx     context.Context
	c       *Client
	escaped string
	body    io.ReadCloser
	at      int64
	tries   int
}

// Get reads a file.
func (c *Client) Get(ctx context.Context, connection, path string, o GetOptions) (*File, error) {
	escaped, err := c.filePath(connection, path)
	if err != nil {
		return nil, err
	}
	f := &File{ctx: ctx, c: c, escaped: escaped, at: o.Offset, ETag: o.ETag}
	return f, f.open()
}

// open asks for the bytes from f.at on.
func (f *File) open() error {
	h := http.Header{}
	if f.at > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", f.at))
		if f.ETag != "" {
			h.Set("If-Range", f.ETag)
		}
	}
	resp, err := f.c.send(f.ctx, call{method: http.MethodGet, escaped: f.escaped, header: h})
	if err != nil {
		return err
	}
	size := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		start, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || start != f.at {
			resp.Body.Close()
			return protocol.Errorf(protocol.CodeInternal, "the answer holds another range than the one asked for")
		}
		size = total
	} else {
		f.at = 0
	}
	f.body, f.Offset, f.Size, f.ETag = resp.Body, f.at, size, resp.Header.Get("ETag")
	if t, err := http.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		f.Time = t
	}
	return nil
}

func parseContentRange(s string) (start, total int64, ok bool) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(rest, "/")
	first, _, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, false
	}
	start, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		return 0, 0, false
	}
	if all == "*" {
		return start, -1, true
	}
	total, err = strconv.ParseInt(all, 10, 64)
	return start, total, err == nil
}

// Read implements io.Reader. io.EOF means that every byte has come.
func (f *File) Read(b []byte) (int, error) {
	for {
		n, err := f.body.Read(b)
		f.at += int64(n)
		if n > 0 {
			f.tries = 0
			return n, nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && (f.Size < 0 || f.at == f.Size) {
			return 0, io.EOF
		}
		if err := f.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume opens the file again at the byte that is wanted next. Without a strong ETag it could be another file: no.
func (f *File) resume(cause error) error {
	if f.ctx.Err() != nil || !strings.HasPrefix(f.ETag, `"`) {
		return f.c.cut(f.ctx, cause)
	}
	f.body.Close()
	was, at := f.ETag, f.at
	for {
		if f.tries++; f.tries > maxTries {
			return f.c.cut(f.ctx, cause)
		}
		if err := sleep(f.ctx, pause(f.tries)); err != nil {
			return err
		}
		first := f.Offset
		err := f.open()
		f.Offset = first
		switch {
		case err == nil && f.at == at && f.ETag == was:
			return nil
		case err == nil:
			return protocol.Errorf(protocol.CodeConflict, "the file changed while it was read")
		case !transient(err):
			return err
		}
		cause, f.body = err, http.NoBody
	}
}

// Close ends the transfer.
func (f *File) Close() error { return f.body.Close() }

// transient reports whether the same call may go well later.
func transient(err error) bool {
	switch CodeOf(err) {
	case protocol.CodeUnavailable, protocol.CodeInterrupted, protocol.CodeRateLimited:
		return true
	}
	return false
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait: %w", ctx.Err())
	}
}

// NewUpload makes an id for a resumable upload.
func NewUpload() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// PutOptions says on what condition and how to write.
type PutOptions struct {
	IfMatch string // replace this version only
	Create  bool   // write only where nothing is yet (If-None-Match: *)
	// Upload makes the transfer resumable: 32 hex digits (NewUpload). An upload that was broken off, by this process or an
	// earlier one, goes on where the site has it. It wants a Content that seeks.
	Upload string
	// Progress is told how many bytes the site holds when the transfer begins or is taken up again.
	Progress func(offset int64)
}

// Put writes a file; it appears whole or not at all. size is content's length, -1 when unknown.
func (c *Client) Put(ctx context.Context, connection, path string, content io.Reader, size int64, o PutOptions) (protocol.FileInfo, error) {
	escaped, err := c.filePath(connection, path)
	if err != nil {
		return protocol.FileInfo{}, err
	}
	seeker, ok := content.(io.Seeker)
	if o.Upload == "" || !ok || size < 0 {
		return c.put(ctx, escaped, content, size, 0, o)
	}
	var last error
	best := int64(-1)
	for try := 0; ; try++ {
		var offset int64
		info, err := c.Stat(ctx, connection, path, o.Upload)
		switch {
		case err == nil && info.Uploaded != nil:
			offset = *info.Uploaded
		case err != nil && CodeOf(err) != protocol.CodeNotFound && CodeOf(err) != protocol.CodeDenied:
			if !transient(err) {
				return protocol.FileInfo{}, err
			}
			last = err
		}
		if err == nil || !transient(err) {
			if offset > size {
				return protocol.FileInfo{}, protocol.Errorf(protocol.CodeConflict, "the site holds %d bytes of this upload, more than the file has (%d)", offset, size)
			}
			if offset > best {
				best, try = offset, 0
			}
			if o.Progress != nil {
				o.Progress(offset)
			}
			if _, err := seeker.Seek(offset, io.SeekStart); err != nil {
				return protocol.FileInfo{}, fmt.Errorf("seek in the local file: %w", err)
			}
			info, err := c.put(ctx, escaped, content, size-offset, offset, o)
			// The request before this one may have written on until it left; the next look tells where it ended.
			if moved := CodeOf(err) == protocol.CodeRange; err == nil || !transient(err) && !moved {
				return info, err
			}
			last = err
		}
		if try >= maxTries || ctx.Err() != nil {
			return protocol.FileInfo{}, last
		}
		if err := sleep(ctx, pause(try+1)); err != nil {
			return protocol.FileInfo{}, err
		}
	}
}

func (c *Client) put(ctx context.Context, escaped string, content io.Reader, size, offset int64, o PutOptions) (protocol.FileInfo, error) {
	h := http.Header{"Content-Type": {"application/octet-stream"}, "Expect": {"100-continue"}} // a refusal costs no transfer
	if o.IfMatch != "" {
		h.Set("If-Match", o.IfMatch)
	}
	if o.Create {
		h.Set("If-None-Match", "*")
	}
	q := url.Values{}
	if o.Upload != "" {
		q.Set("upload", o.Upload)
		if offset > 0 {
			q.Set("offset", strconv.FormatInt(offset, 10))
		}
	}
	k := call{method: http.MethodPut, escaped: escaped, query: q, header: h, body: io.NopCloser(content), size: size}
	if size == 0 {
		k.body = http.NoBody
	}
	resp, err := c.send(ctx, k)
	if err != nil {
		return protocol.FileInfo{}, err
	}
	defer resp.Body.Close()
	info := protocol.FileInfo{Size: offset + size, ETag: resp.Header.Get("ETag")}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil {
		return protocol.FileInfo{}, c.cut(ctx, err)
	}
	if len(b) > 0 && json.Unmarshal(b, &info) != nil {
		return protocol.FileInfo{}, protocol.Errorf(protocol.CodeInternal, "the answer to the write is not what this version expects")
	}
	return info, nil
}
