package sqldb

import (
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

const (
	flushBytes = 64 << 10
	flushAfter = 20 * time.Millisecond // so that the first rows of a slow query arrive soon
)

// errCut says that a cap has cut the answer: nothing more is wanted of the database.
var errCut = errors.New("a cap has cut the answer")

// errCaller says that the answer can no longer be written.
var errCaller = errors.New("the caller no longer reads the answer")

// stream writes one NDJSON answer. head, row and finish are for one goroutine; a timer flushes beside it.
type stream struct {
	w        http.ResponseWriter
	rc       *http.ResponseController
	maxRows  int64 // 0: none
	maxBytes int64
	start    time.Time

	rows      int64
	bytes     int64
	truncated string
	headed    bool // the head is in buf or sent: errors go into the end line from here on

	mu    sync.Mutex // guards what the timer touches
	buf   []byte
	timer *time.Timer
	armed bool
	wrote bool
	err   error
}

func newStream(w http.ResponseWriter, maxRows, maxBytes int64) *stream {
	s := &stream{w: w, rc: http.NewResponseController(w), maxRows: maxRows, maxBytes: maxBytes, start: time.Now()}
	s.buf = make([]byte, 0, flushBytes+4<<10)
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.timer.Stop()
	return s
}

func (s *stream) tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed {
		s.flushLocked()
	}
}

// flushLocked sends what is buffered. A write error sticks.
func (s *stream) flushLocked() {
	if len(s.buf) == 0 {
		s.armed = false
		return
	}
	if s.writeLocked(); s.err != nil {
		return
	}
	if err := s.rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.err = errors.Join(errCaller, err)
	}
}

// writeLocked hands over what is buffered; it leaves with the next flush, or when the handler returns.
func (s *stream) writeLocked() {
	s.armed = false
	if len(s.buf) == 0 || s.err != nil {
		return
	}
	if !s.wrote {
		s.w.Header().Set("Content-Type", protocol.ContentNDJSON)
		s.wrote = true
	}
	if _, err := s.w.Write(s.buf); err != nil {
		s.err = errors.Join(errCaller, err)
	}
	s.buf = s.buf[:0]
}

func (s *stream) append(line []byte) error {
	s.bytes += int64(len(line))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf = append(s.buf, line...)
	switch {
	case len(s.buf) >= flushBytes:
		s.flushLocked()
	case !s.armed:
		s.armed = true
		s.timer.Reset(flushAfter)
	}
	return s.err
}

// head begins the answer.
func (s *stream) head(cols []protocol.Column) error {
	if cols == nil {
		cols = []protocol.Column{}
	}
	line, err := json.Marshal(protocol.ResultHead{Columns: cols})
	if err != nil {
		return err
	}
	s.headed = true
	return s.append(append(line, '\n'))
}

// row adds one line, newline included. errCut means that it was not taken and no further row will be.
func (s *stream) row(line []byte) error {
	switch {
	case len(line) > MaxRowBytes:
		return errRowSize
	case s.maxRows > 0 && s.rows >= s.maxRows:
		s.truncated = "max_rows"
		return errCut
	case s.maxBytes > 0 && s.bytes+int64(len(line)) > s.maxBytes:
		s.truncated = "max_bytes"
		return errCut
	}
	s.rows++
	return s.append(line)
}

// finish writes the end line. With e the end is an error. With flush all is sent at once; else it leaves with the end of the
// answer, which is to come right after, in one piece.
func (s *stream) finish(e *protocol.Error, flush bool) error {
	end := protocol.ResultEnd{Error: e}
	if e == nil {
		end.End = &protocol.End{Rows: s.rows, Truncated: s.truncated, ElapsedMs: time.Since(s.start).Milliseconds()}
	}
	line, err := json.Marshal(end)
	if err != nil {
		return err
	}
	err = s.append(append(line, '\n'))
	s.mu.Lock()
	defer s.mu.Unlock()
	if flush {
		s.flushLocked()
	} else {
		s.writeLocked()
	}
	return errors.Join(err, s.err)
}

// stop ends the timer. After it the ResponseWriter is not touched.
func (s *stream) stop() {
	s.timer.Stop()
	s.mu.Lock()
	s.armed, s.err = false, errors.Join(s.err, errCaller)
	s.mu.Unlock()
}
