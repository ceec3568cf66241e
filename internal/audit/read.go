package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
)

// maxReadBytes bounds the lines of one Read, so that a batch fits a control body of the protocol.
const maxReadBytes = 2 << 20

// Read gives at most max durable records after the one numbered after, in order, and at most 2 MiB of them (but one in any case).
// Nothing new is no error. ErrReleased is answered when the next record is no longer held (see Oldest), and a *TamperError
// when the disk does not hold what was acknowledged. It may be called while the log is bad.
func (l *Log) Read(after uint64, max int) ([]Record, error) {
	var out []Record
	size := 0
	for len(out) < max && size < maxReadBytes {
		n := len(out)
		var err error
		if out, err = l.readSegment(out, after, max, &size); err != nil {
			return nil, err
		}
		if len(out) == n {
			break
		}
		after = out[len(out)-1].Seq
	}
	return out, nil
}

// readSegment appends records of the one segment that holds the record behind after.
func (l *Log) readSegment(out []Record, after uint64, max int, size *int) ([]Record, error) {
	l.mu.Lock()
	durable := l.durable
	if after >= durable.Seq {
		l.mu.Unlock()
		return out, nil
	}
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].first > after+1 }) - 1
	if i < 0 {
		l.mu.Unlock()
		return nil, ErrReleased
	}
	seg, last := l.segs[i], durable.Seq
	if i+1 < len(l.segs) {
		last = min(last, l.segs[i+1].first-1)
	}
	from := seg.find(after + 1)
	l.mu.Unlock()

	path := segmentPath(l.cfg.Dir, seg.first)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) && l.mayDelete(last) {
		return nil, ErrReleased
	}
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Seek(from.off, io.SeekStart); err != nil {
		return nil, fmt.Errorf("seek in segment: %w", err)
	}
	prev := Head{Seq: after}
	if n := len(out); n > 0 {
		prev = out[n-1].Head()
	}
	r := bufio.NewReaderSize(f, 64<<10)
	for from.seq <= last && len(out) < max && *size < maxReadBytes {
		line, err := readLine(r)
		if err != nil {
			return nil, &TamperError{Seq: from.seq, File: filepath.Base(path), Reason: "the line is missing, too long or not complete"}
		}
		from.off += int64(len(line) + 1)
		from.seq++
		if from.seq <= after+1 {
			continue
		}
		rec, fault := follow(prev, line)
		if fault == nil && rec.Seq == durable.Seq && rec.Hash != durable.Hash {
			fault = &TamperError{Seq: rec.Seq, Reason: "it is not the record that was acknowledged"}
		}
		if fault != nil {
			return nil, fault.at(filepath.Base(path), 0)
		}
		out = append(out, rec)
		prev = rec.Head()
		*size += len(line) + 1
	}
	l.mu.Lock()
	seg.hint = from
	l.mu.Unlock()
	return out, nil
}

// mayDelete reports whether records up to last have been released, so that their segment may have gone.
func (l *Log) mayDelete(last uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cfg.MaxBytes > 0 && last <= l.released
}

// find gives the nearest known place at or before seq. Called with Log.mu held.
func (s *segment) find(seq uint64) mark {
	best := mark{s.first, 0}
	if i := sort.Search(len(s.marks), func(i int) bool { return s.marks[i].seq > seq }); i > 0 {
		best = s.marks[i-1]
	}
	if s.hint.seq > best.seq && s.hint.seq <= seq {
		best = s.hint
	}
	return best
}

var errLine = errors.New("line is too long or not complete")

// readLine reads one line of at most MaxLineBytes, without its newline. io.EOF when there is nothing at all.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil && len(line) <= MaxLineBytes+1:
			return line[:len(line)-1], nil
		case err == io.EOF && len(line) == 0:
			return nil, io.EOF
		case err == bufio.ErrBufferFull && len(line) <= MaxLineBytes:
		case err == nil, err == io.EOF, err == bufio.ErrBufferFull:
			return line, errLine
		default:
			return nil, fmt.Errorf("read line: %w", err)
		}
	}
}
