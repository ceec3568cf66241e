package audit

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxAside bounds the files of set-aside bytes and the size of each.
const (
	maxAside      = 4
	maxAsideBytes = 64 << 10
)

// TamperError says that a log is not what was acknowledged.
type TamperError struct {
	Seq    uint64 // the first record that is missing, changed or out of place
	File   string // file name in the log's folder; empty for a stream
	Line   int    // in File or the stream, from 1; 0 when it is not about one line
	Reason string
	// Torn: the log ends in bytes that are no whole record. A crash leaves that behind, in records that were never
	// acknowledged; the next Open sets them aside.
	Torn bool

	chain bool // a whole line that does not belong here: no torn write looks like that
}

func (e *TamperError) Error() string {
	at := ""
	if e.File != "" {
		at = " (" + e.File
		if e.Line > 0 {
			at += ":" + strconv.Itoa(e.Line)
		}
		at += ")"
	}
	return fmt.Sprintf("audit log is broken at record %d%s: %s", e.Seq, at, e.Reason)
}

// listSegments gives the first sequence numbers of the segments in a folder, rising.
func listSegments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read audit folder: %w", err)
	}
	var firsts []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".log")
		if !ok || len(name) != 20 {
			continue
		}
		if n, err := strconv.ParseUint(name, 10, 63); err == nil && n > 0 {
			firsts = append(firsts, n)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// load reads the end of the log from disk and makes it ready for appending, on a new inode. keep is nil at Open; in a running
// process it is the acknowledged head, and exactly what it covers is kept. Nothing is changed before everything was checked.
func (l *Log) load(keep *Head) error {
	if err := l.removeTemps(); err != nil {
		return err
	}
	cps, good, rest, err := l.loadCheckpoints()
	if err != nil {
		return err
	}
	firsts, err := listSegments(l.cfg.Dir)
	if err != nil {
		return err
	}
	tail, err := l.readTail(firsts, cps, keep)
	if err != nil {
		return err
	}
	if n := len(cps); n > 0 && cps[n-1].Seq > tail.head.Seq {
		return &TamperError{Seq: tail.head.Seq + 1, Reason: fmt.Sprintf("the log ends here, and a checkpoint says that it had %d records",
			cps[n-1].Seq)}
	}
	if err := l.resetCheckpoints(cps, good, rest); err != nil {
		return err
	}
	segs, err := l.rewrite(tail)
	if err != nil {
		return err
	}
	total := l.cpSize
	for i, s := range segs {
		if i < len(segs)-1 || l.file == nil {
			info, err := os.Stat(segmentPath(l.cfg.Dir, s.first))
			if err != nil {
				return fmt.Errorf("size of segment: %w", err)
			}
			s.size = info.Size()
		}
		total += s.size
	}
	l.mu.Lock()
	l.segs, l.total = segs, total
	l.seq, l.prev, l.durable = tail.head.Seq, tail.head.Hash, tail.head
	l.mu.Unlock()
	if err := l.writeCheckpoint(true); err != nil {
		return err
	}
	if err := l.disk.syncDir(l.cfg.Dir); err != nil {
		return fmt.Errorf("sync audit folder: %w", err)
	}
	return nil
}

// logTail is the end of the log as it is to be.
type logTail struct {
	firsts []uint64
	head   Head
	data   []byte // what stays of the last segment
	aside  []byte // what does not
}

// readTail walks the last two segments: the one before the last proves where the last begins.
func (l *Log) readTail(firsts []uint64, cps []Checkpoint, keep *Head) (logTail, error) {
	t := logTail{firsts: firsts, head: Genesis}
	if len(firsts) == 0 {
		return t, keepError(keep, t.head)
	}
	start := max(0, len(firsts)-2)
	if first := firsts[start]; first > 1 {
		t.head = Head{Seq: first - 1} // the hash is not known unless a checkpoint has it
		for _, c := range cps {
			if c.Seq == first-1 {
				t.head.Hash = c.Hash
			}
		}
	}
	for i := start; i < len(firsts); i++ {
		last := i == len(firsts)-1
		name := filepath.Base(segmentPath(l.cfg.Dir, firsts[i]))
		data, err := os.ReadFile(filepath.Join(l.cfg.Dir, name))
		if err != nil {
			return t, fmt.Errorf("read segment: %w", err)
		}
		data = bytes.TrimRight(data, "\x00") // room that was reserved and not used
		if firsts[i] != t.head.Seq+1 {
			return t, &TamperError{Seq: t.head.Seq + 1, File: name, Reason: "a segment is missing before this one"}
		}
		head, size, fault := scan(data, t.head, keep)
		if fault != nil {
			fault.File = name
			if !last || fault.chain || promised(data[size:], fault.Seq) {
				return t, fault
			}
		}
		t.head = head
		if last {
			t.data, t.aside = data[:size], data[size:]
		}
	}
	if keep != nil || t.head.Hash != "" {
		return t, keepError(keep, t.head)
	}
	return t, &TamperError{Seq: t.head.Seq, Reason: "the records before the last segment are gone, and no checkpoint holds their hash"}
}

// keepError checks that what was read ends where memory says that it must.
func keepError(keep *Head, got Head) error {
	if keep == nil || *keep == got {
		return nil
	}
	return &TamperError{Seq: min(keep.Seq, got.Seq+1), Reason: "what is on disk is not what was acknowledged"}
}

// scan follows the chain through a segment's bytes from head on and stops before the first line that does not belong to it, or
// behind keep. size is how many bytes belong to it.
func scan(data []byte, head Head, keep *Head) (Head, int, *TamperError) {
	size := 0
	for n := 1; size < len(data); n++ {
		if keep != nil && head.Seq >= keep.Seq {
			return head, size, nil
		}
		line, _, ok := bytes.Cut(data[size:], []byte("\n"))
		if !ok {
			return head, size, &TamperError{Seq: head.Seq + 1, Line: n, Reason: "the line is not complete", Torn: true}
		}
		r, fault := follow(head, line)
		if fault != nil {
			next, _, _ := bytes.Cut(data[min(size+len(line)+1, len(data)):], []byte("\n"))
			return head, size, fault.at("", n).blame(r, next)
		}
		head = r.Head()
		size += len(line) + 1
	}
	return head, size, nil
}

// follow parses a line that must come right after head, and says what is wrong with it otherwise. A head without a hash is
// followed by any.
func follow(head Head, line []byte) (Record, *TamperError) {
	r, err := ParseLine(line)
	switch {
	case err != nil:
		return r, &TamperError{Seq: head.Seq + 1, Reason: err.Error()}
	case r.Seq != head.Seq+1:
		return r, &TamperError{
			Seq: head.Seq + 1, Reason: fmt.Sprintf("record %d stands where %d belongs", r.Seq, head.Seq+1), chain: true,
		}
	case head.Hash != "" && r.Prev != head.Hash:
		return r, &TamperError{Seq: head.Seq + 1, Reason: "its prev is not the hash of the record before", chain: true}
	}
	return r, nil
}

func (e *TamperError) at(file string, line int) *TamperError {
	e.File, e.Line = file, line
	return e
}

// blame finds which of two records that do not fit was changed, when the later one, r, is a whole record with the right number:
// if the line after it vouches for r, it is the one before.
func (e *TamperError) blame(r Record, next []byte) *TamperError {
	n, err := ParseLine(next)
	if e.chain && r.Seq == e.Seq && e.Seq > 1 && err == nil && n.Seq == r.Seq+1 && n.Prev == r.Hash {
		e.Seq--
		e.Line = max(0, e.Line-1)
		e.Reason = "its hash is not the one that the next record has"
	}
	return e
}

// promised reports whether a later line says that record seq was durable: then what is wrong there is not a torn write.
func promised(rest []byte, seq uint64) bool {
	for line := range bytes.SplitSeq(rest, []byte("\n")) {
		if r, err := ParseLine(line); err == nil && r.Durable >= seq {
			return true
		}
	}
	return false
}

// rewrite puts the last segment on a new inode and opens it.
func (l *Log) rewrite(t logTail) ([]*segment, error) {
	var segs []*segment
	for _, f := range t.firsts {
		segs = append(segs, &segment{first: f})
	}
	if len(segs) == 0 {
		return nil, nil
	}
	last := segs[len(segs)-1]
	path := segmentPath(l.cfg.Dir, last.first)
	if len(t.aside) > 0 {
		l.setAside(fmt.Sprintf("%020d", t.head.Seq+1), t.aside)
	}
	if len(t.data) == 0 {
		if err := l.disk.remove(path); err != nil {
			return nil, fmt.Errorf("remove empty segment: %w", err)
		}
		return segs[:len(segs)-1], nil
	}
	if err := l.disk.replace(l.cfg.Dir, path, t.data); err != nil {
		return nil, fmt.Errorf("rewrite last segment: %w", err)
	}
	f, err := l.disk.open(path, os.O_WRONLY)
	if err != nil {
		return nil, fmt.Errorf("open last segment: %w", err)
	}
	if _, err := f.Seek(int64(len(t.data)), io.SeekStart); err != nil {
		_ = l.disk.close(f)
		return nil, fmt.Errorf("seek in last segment: %w", err)
	}
	l.file, l.size = f, int64(len(t.data))
	last.size = l.size
	return segs, nil
}

// setAside keeps bytes that were never acknowledged, for a look at what happened. It is a courtesy: a fault here harms nothing.
func (l *Log) setAside(name string, data []byte) {
	l.cfg.Logger.Warn("unacknowledged bytes at the end of the audit log are set aside", "dir", l.cfg.Dir, "at", name, "bytes", len(data))
	old, err := filesWith(l.cfg.Dir, ".bad")
	if err != nil {
		return
	}
	slices.SortFunc(old, func(a, b os.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for ; len(old) >= maxAside; old = old[1:] {
		_ = l.disk.remove(filepath.Join(l.cfg.Dir, old[0].Name()))
	}
	path := filepath.Join(l.cfg.Dir, name+"-"+strconv.FormatInt(time.Now().UnixMilli(), 10)+".bad")
	_ = l.disk.replace(l.cfg.Dir, path, data[:min(len(data), maxAsideBytes)])
}

func (l *Log) removeTemps() error {
	old, err := filesWith(l.cfg.Dir, ".tmp")
	if err != nil {
		return fmt.Errorf("look for temporary files: %w", err)
	}
	for _, p := range old {
		if err := l.disk.remove(filepath.Join(l.cfg.Dir, p.Name())); err != nil {
			return fmt.Errorf("remove temporary file: %w", err)
		}
	}
	return nil
}

func filesWith(dir, suffix string) ([]os.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []os.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), suffix) && info.Mode().IsRegular() {
			out = append(out, info)
		}
	}
	return out, nil
}
