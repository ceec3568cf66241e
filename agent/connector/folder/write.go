package folder

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/textproto"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/protocol"
)

var (
	errPrecondition = &protocol.Error{Code: protocol.CodePrecondition, Origin: protocol.OriginAgent, Message: "the file is not what If-Match or If-None-Match says: it exists already, was changed, or is gone"}
	errUploadBusy   = &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginAgent, Message: "another request is writing this upload",
		Hint: "a request that was cut leaves within a minute; what it wrote is kept"}
)

// uploadWait is how long a request waits for the one before it to leave the same upload: the agent learns a little later
// than the caller that a request was cut.
const uploadWait = 5 * time.Second

// spaceEvery is how many bytes are written between two looks at the disk's free space.
const spaceEvery = 4 << 20

// space is what a file system has left. files is 0 where it does not count them.
type space struct{ free, total, files, freeFiles uint64 }

// room refuses n more bytes when they would eat into the reserve.
func (f *Folder) room(file *os.File, n int64) error {
	s, err := f.space(file)
	if err != nil {
		return err
	}
	percent := max(0, f.cfg.ReservePercent) / 100
	reserve := max(uint64(max(0, f.cfg.ReserveBytes)), uint64(percent*float64(s.total)))
	if s.free < reserve || s.free-reserve < uint64(n) {
		return &protocol.Error{Code: protocol.CodeQuota, Origin: protocol.OriginTarget, Message: "the disk at the site would have less free space than its reserve"}
	}
	if s.files > 0 && s.freeFiles < uint64(percent*float64(s.files)) {
		return &protocol.Error{Code: protocol.CodeQuota, Origin: protocol.OriginTarget, Message: "the file system at the site would have fewer free inodes than its reserve"}
	}
	return nil
}

// write streams the body to a temporary file in the same folder and puts it in place when all of it is on disk. With an
// upload id the temporary file outlives a cut and the next request goes on where it ended.
func (f *Folder) write(ctx context.Context, root *os.Root, c *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
	r := c.Request
	if r.Path == "" {
		return protocol.Outcome{}, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: "write wants the path of a file"}
	}
	if err := f.allowed(c.Decision.Match, r.Path, false); err != nil {
		return protocol.Outcome{}, err
	}
	p, err := locate(root, r.Path)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer p.dir.Close()
	// Checked here so that a hopeless upload ends before it begins, and again under the lock, where it counts.
	if _, err := f.target(p, r.Header); err != nil {
		return protocol.Outcome{}, err
	}
	t, err := f.temporary(ctx, p, r)
	if err != nil {
		return protocol.Outcome{}, err
	}
	defer t.close()
	defer f.written()

	limit := f.limit(c)
	declared, err := strconv.ParseInt(r.Header.Get("Content-Length"), 10, 64)
	if err != nil || declared < 0 {
		declared = 0
	}
	if limit > 0 && (declared > limit || t.size > limit-declared) {
		return protocol.Outcome{}, tooLarge(limit)
	}
	if err := f.room(t.file, declared); err != nil {
		return protocol.Outcome{}, err
	}
	// A body that does not come is waited for only as long as the caller does.
	defer context.AfterFunc(ctx, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })()
	n, err := f.receive(ctx, t, c.Body, limit)
	out := protocol.Outcome{BytesIn: n}
	if err == nil {
		err = f.sync(t.file)
	}
	if err != nil {
		return out, err
	}
	if r.Partial {
		t.keep = true
		sum, err := answer(w, http.StatusAccepted, protocol.FileInfo{Path: r.Path, Uploaded: &t.size})
		sum.BytesIn = n
		return sum, err
	}
	st, created, err := f.install(root, p, t, r.Header)
	if err != nil {
		return out, err
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	w.Header().Set("ETag", etag(st))
	sum, err := answer(w, status, fileInfo(r.Path, st))
	sum.BytesIn = n
	return sum, err
}

// receive copies the body to the temporary file.
func (f *Folder) receive(ctx context.Context, t *temporary, body io.Reader, limit int64) (total int64, err error) {
	if body == nil {
		return 0, nil
	}
	buf := buffers.Get().(*[64 << 10]byte)
	defer buffers.Put(buf)
	looked := int64(0)
	for {
		n, rerr := body.Read(buf[:])
		if err := ctx.Err(); err != nil {
			return total, err
		}
		if n > 0 {
			if limit > 0 && t.size+int64(n) > limit {
				t.spoilt = true
				return total, tooLarge(limit)
			}
			if looked += int64(n); looked >= spaceEvery {
				looked = 0
				if err := f.room(t.file, 0); err != nil {
					return total, err
				}
			}
			m, werr := t.file.Write(buf[:n])
			t.size += int64(m)
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if errors.Is(rerr, io.EOF) && !errors.Is(rerr, io.ErrUnexpectedEOF) {
			return total, nil
		}
		if rerr != nil {
			return total, &protocol.Error{Code: protocol.CodeInterrupted, Origin: protocol.OriginAgent, Message: "the upload ended before its end; the file was not changed", Cause: rerr}
		}
	}
}

// target checks what stands where a file is to be written or taken away: nothing, or a regular file that may be replaced
// and that the preconditions hold for.
func (f *Folder) target(p place, h http.Header) (fs.FileInfo, error) {
	st, err := p.info()
	if absent(err) {
		st, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st != nil && st.IsDir() {
		return nil, &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginTarget, Message: "a folder of that name exists"}
	}
	if st != nil {
		if err := f.soleLink(p, st, true); err != nil {
			return nil, err
		}
	}
	return st, precondition(h, st)
}

// precondition applies If-Match and If-None-Match (RFC 9110, 13.1); st is nil when there is no file.
func precondition(h http.Header, st fs.FileInfo) error {
	tag := ""
	if st != nil && !st.IsDir() {
		tag = etag(st)
	}
	if v := h["If-Match"]; len(v) > 0 && !listed(v, st != nil, tag) {
		return errPrecondition
	}
	if v := h["If-None-Match"]; len(v) > 0 && listed(v, st != nil, tag) {
		return errPrecondition
	}
	return nil
}

// listed reports whether a list of entity tags holds tag, or is "*" and something exists. A weak tag never equals ours,
// which are strong, and what cannot be read equals nothing.
func listed(values []string, exists bool, tag string) bool {
	for _, v := range values {
		for _, t := range strings.Split(v, ",") {
			if t = textproto.TrimString(t); t == "*" && exists || tag != "" && t == tag {
				return true
			}
		}
	}
	return false
}

// exclusive reports whether the caller wants the file only if there is none.
func exclusive(h http.Header) bool {
	v := h["If-None-Match"]
	return len(v) == 1 && textproto.TrimString(v[0]) == "*"
}

// install puts a finished temporary file in place and makes that durable.
func (f *Folder) install(root *os.Root, p place, t *temporary, h http.Header) (st fs.FileInfo, created bool, err error) {
	f.commit.Lock()
	defer f.commit.Unlock()
	if err := p.same(root); err != nil {
		return nil, false, err
	}
	have, err := f.target(p, h)
	if err != nil {
		return nil, false, err
	}
	if have != nil && !isWindows {
		if err := t.file.Chmod(have.Mode().Perm()); err != nil { // our own file, by its descriptor
			return nil, false, err
		}
	}
	from := p
	from.name = t.name
	if isWindows {
		_ = t.file.Close() // an open file does not change its name there
	}
	if exclusive(h) {
		if err = renameNew(root, from, p, false); errors.Is(err, fs.ErrExist) {
			err = errPrecondition
		}
	} else {
		err = rename(root, from, p)
	}
	if err != nil {
		return nil, false, err
	}
	t.keep = true // it has its name now
	if err := syncFolder(p.dir, f.sync); err != nil {
		return nil, false, err
	}
	st, err = p.info()
	return st, have == nil, err
}

// temporary is a file that a write streams to.
type temporary struct {
	f      *Folder
	dir    *os.Root
	name   string
	key    string // in f.active
	file   *os.File
	size   int64
	keep   bool // close leaves the file
	part   bool // belongs to an upload: a cut leaves it
	spoilt bool // cannot become a file any more
}

// temporary opens the file for a write. Its lock tells sweepers, also of other processes, that it is in use.
func (f *Folder) temporary(ctx context.Context, p place, r *protocol.Request) (*temporary, error) {
	t := &temporary{f: f, dir: p.dir, part: r.Upload != ""}
	if t.part {
		t.name = partName(r.Upload, r.Path)
	} else {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		t.name = reservedPrefix + hex.EncodeToString(b[:]) + ".tmp"
	}
	key := join(p.folder, t.name)
	if err := f.claim(ctx, key); err != nil {
		return nil, err
	}
	t.key = key
	err := t.open(p)
	if err == nil && t.part && t.size != r.Offset {
		err = &protocol.Error{Code: protocol.CodeRange, Origin: protocol.OriginAgent, Message: "the offset is not where the upload ended", Detail: strconv.FormatInt(t.size, 10),
			Hint: "send the rest from the offset in detail"}
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// claim takes a temporary file for one request. Who holds it already is waited for, not for ever.
func (f *Folder) claim(ctx context.Context, key string) error {
	wait := time.NewTimer(f.wait)
	defer wait.Stop()
	for {
		f.mu.Lock()
		left, busy := f.active[key]
		if !busy {
			f.active[key] = make(chan struct{})
		}
		f.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-left:
		case <-wait.C:
			return errUploadBusy
		case <-ctx.Done():
			return fmt.Errorf("wait for an upload: %w", ctx.Err())
		}
	}
}

func (t *temporary) open(p place) error {
	var err error
	if t.part {
		at := p
		at.name = t.name
		var st fs.FileInfo
		t.file, st, err = at.openFile(os.O_RDWR)
		if err == nil {
			if n, lerr := links(p.dir, t.name, st); lerr != nil || n > 1 {
				return errLink // somebody at the site put it there
			}
		}
	}
	if t.file == nil {
		if t.part && !absent(err) {
			return err
		}
		if t.file, err = p.dir.OpenFile(t.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, createMode); err != nil {
			return err
		}
	}
	// A file system without locks answers an error; then the set in memory has to do.
	if ok, err := tryLock(t.file); err == nil && !ok {
		t.keep = true
		return errUploadBusy
	}
	t.size, err = t.file.Seek(0, io.SeekEnd)
	return err
}

// close ends the use of the file. Unless it is kept it goes.
func (t *temporary) close() {
	if t.file != nil {
		if t.part && !t.spoilt && !t.keep {
			_ = t.f.sync(t.file) // what a stat of the upload tells should outlive a power cut
		}
		_ = t.file.Close()
		if (!t.part || t.spoilt) && !t.keep {
			if err := t.dir.Remove(t.name); err != nil && !absent(err) {
				t.f.log.Warn("a temporary file stays until the next sweep", "error", err)
			}
		}
	}
	t.f.mu.Lock()
	close(t.f.active[t.key])
	delete(t.f.active, t.key)
	t.f.mu.Unlock()
}
