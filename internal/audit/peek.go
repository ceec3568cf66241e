package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Glance is what can be told of a log from outside.
type Glance struct {
	Segments int
	Bytes    int64  // of all segments
	Oldest   uint64 // first record that is held; 0 when there is none
	Last     Record // the newest whole record; its Seq is 0 when there is none
}

// Peek looks at a log's folder without opening the log: it takes no lock, changes nothing, and proves nothing (Verify does).
// The log may be written meanwhile. A folder that does not exist holds an empty log.
func Peek(dir string) (Glance, error) {
	g, err := peek(dir)
	if errors.Is(err, fs.ErrNotExist) { // a segment was released between the list and the look
		g, err = peek(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return Glance{}, nil
	}
	return g, err
}

func peek(dir string) (Glance, error) {
	var g Glance
	firsts, err := listSegments(dir)
	if err != nil {
		return g, err
	}
	g.Segments = len(firsts)
	for i := len(firsts) - 1; i >= 0; i-- {
		size, last, err := lastRecord(segmentPath(dir, firsts[i]))
		if err != nil {
			return g, err
		}
		g.Bytes += size
		if g.Last.Seq == 0 {
			g.Last = last
		}
		if last.Seq != 0 {
			g.Oldest = firsts[i]
		}
	}
	return g, nil
}

// lastRecord reads the last whole line of a segment; what is behind it is still being written.
func lastRecord(path string) (int64, Record, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, Record{}, fmt.Errorf("open segment: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, Record{}, fmt.Errorf("look at segment: %w", err)
	}
	size := info.Size()
	tail := make([]byte, min(size, 2*MaxLineBytes+2))
	for { // zeros are room that was reserved and not used
		tail = tail[:min(size, int64(cap(tail)))]
		if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
			return size, Record{}, fmt.Errorf("read segment: %w", err)
		}
		used := len(bytes.TrimRight(tail, "\x00"))
		zeros := len(tail) - used
		if size -= int64(zeros); zeros == 0 || size == 0 {
			break
		}
	}
	end := bytes.LastIndexByte(tail, '\n')
	if end < 0 {
		return size, Record{}, nil
	}
	line := tail[bytes.LastIndexByte(tail[:end], '\n')+1 : end]
	r, err := ParseLine(line)
	if err != nil {
		return size, Record{}, fmt.Errorf("last line of %s: %w", filepath.Base(path), err)
	}
	return size, r, nil
}
