package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// ErrUnavailable says that a record cannot be stored now. Whoever needs the record must not act. The errors below wrap it.
var ErrUnavailable = errors.New("audit log is unavailable")

// Reasons for ErrUnavailable.
var (
	ErrFull   = fmt.Errorf("%w: its size budget is used up", ErrUnavailable)
	ErrClosed = fmt.Errorf("%w: it is closed", ErrUnavailable)
	ErrBusy   = fmt.Errorf("%w: the disk does not keep up", ErrUnavailable)
)

// ErrReleased says that the records asked for have been released and deleted.
var ErrReleased = errors.New("audit records have been released")

// ErrBody says that a body is not one UTF-8 JSON value of at most MaxBodyBytes.
var ErrBody = errors.New("audit record body is not one JSON value of a lawful size")

// Config configures a Log. Zero values mean the defaults named.
type Config struct {
	Dir    string // created with mode 0700 when missing. Only one Log can hold it
	Source string // who writes: an agent's or relay's id; stands in checkpoints. Printable ASCII, at most 256 bytes

	SegmentBytes int64 // a new segment is begun past this; 16 MiB, or an eighth of MaxBytes if that is less
	MaxBytes     int64 // budget of the folder; 0: none. At least MinBudget. When used up, Append answers ErrFull

	Key                ed25519.PrivateKey // signs checkpoints; nil: there are none
	CheckpointEvery    int                // records between checkpoints; 1000
	CheckpointInterval time.Duration      // longest time that a record stays without one; 1 minute

	RetryEvery    time.Duration // pause between attempts to recover from a disk fault; 1 s
	MaxPending    int           // bytes that may wait for the disk, beyond which Append blocks; 4 MiB, at most SegmentBytes
	AppendTimeout time.Duration // how long Append blocks before it answers ErrBusy; 10 s
	Logger        *slog.Logger  // faults and recoveries, never contents; nil: none

	reserve int64 // bytes of the active segment that are kept ready ahead of its records, beyond MaxBytes; see withDefaults
}

// MinBudget is the least MaxBytes.
const MinBudget = 256 << 10

const (
	reserveBytes    = 64 << 10 // of MaxBytes that only appendReserved and checkpoints may use
	checkpointSpare = 16 << 10 // of reserveBytes that only checkpoints may use
)

func (c Config) withDefaults() (Config, error) {
	if c.Dir == "" {
		return c, errors.New("audit log: no folder is named")
	}
	if len(c.Source) > 256 || strings.ContainsFunc(c.Source, func(r rune) bool { return r < ' ' || r > '~' }) {
		return c, errors.New("audit log: the source is not printable ASCII of at most 256 bytes")
	}
	if c.MaxBytes != 0 && c.MaxBytes < MinBudget {
		return c, fmt.Errorf("audit log: a budget of %d bytes is too small, the least is %d", c.MaxBytes, MinBudget)
	}
	if c.Key != nil && len(c.Key) != ed25519.PrivateKeySize {
		return c, errors.New("audit log: the key is not an Ed25519 private key")
	}
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = 16 << 20
	}
	if c.MaxBytes > 0 {
		c.SegmentBytes = min(c.SegmentBytes, c.MaxBytes/8)
	}
	c.reserve = min(512<<10, c.SegmentBytes/16) &^ 4095
	if c.MaxPending <= 0 {
		c.MaxPending = 4 << 20
	}
	c.MaxPending = int(min(int64(c.MaxPending), max(c.SegmentBytes, 16<<10))) // what is pending goes into one segment
	if c.CheckpointEvery <= 0 {
		c.CheckpointEvery = 1000
	}
	if c.CheckpointInterval <= 0 {
		c.CheckpointInterval = time.Minute
	}
	if c.RetryEvery <= 0 {
		c.RetryEvery = time.Second
	}
	if c.AppendTimeout <= 0 {
		c.AppendTimeout = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// Log is an append-only, hash-chained log in a folder. Open starts one goroutine, the committer, which alone writes; Close
// joins it. Safe for concurrent use.
type Log struct {
	cfg  Config
	disk disk
	lock *os.File
	kid  string

	wake    chan struct{} // capacity 1: there is something to commit or to delete
	closing chan struct{}
	done    chan struct{}

	mu       sync.Mutex
	seq      uint64 // last appended
	prev     string // its hash
	buf      []byte // lines not yet taken by the committer
	batch    *batch // whom to tell about buf
	room     chan struct{}
	durable  Head
	changed  chan struct{}
	bad      error // why the log fails closed; nil while it is well
	closed   bool
	segs     []*segment // by first, the active one last
	total    int64      // bytes of segments and checkpoints, with those not yet written
	released uint64
	full     bool // the budget is used up

	// Owned by the committer (and by Open before it starts).
	file       *os.File // active segment; nil: the next commit begins one
	size       int64    // of the active segment
	reserved   int64    // where the zeros behind size end; 0: there are none; -1: there is no room for them
	spare      []byte
	cpFile     *os.File
	cpSize     int64
	cpSeq      uint64 // of the last checkpoint
	cpAny      bool   // there is a checkpoint
	cpDirty    bool   // the last one is not synced
	closeErr   error
	recovering bool
}

type segment struct {
	first uint64
	size  int64  // durable bytes
	marks []mark // guarded by Log.mu, rising
	hint  mark   // where the last Read ended, guarded by Log.mu
}

// mark says that the record seq starts at byte off.
type mark struct {
	seq uint64
	off int64
}

// batch is a group of records that becomes durable together.
type batch struct {
	n    int
	due  bool        // the committer is told
	soon *time.Timer // tells it, when nobody has before; nil: no need
	done chan struct{}
	err  error // set before done is closed
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// Ticket is one appended record that waits for the disk.
type Ticket struct {
	seq uint64
	b   *batch
	l   *Log
}

// Seq is the record's number, final only once Wait has returned nil: a record that failed leaves its number to the next.
func (t *Ticket) Seq() uint64 { return t.seq }

// Wait returns nil when the record is durable, an error wrapping ErrUnavailable when it will not be, and ctx's error when that
// came first: then nothing is known. Any number of goroutines may wait.
func (t *Ticket) Wait(ctx context.Context) error {
	select {
	case <-t.b.done:
		return t.b.err
	default:
	}
	t.l.mu.Lock()
	t.l.hurry(t.b)
	t.l.mu.Unlock()
	select {
	case <-t.b.done:
		return t.b.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Open opens or creates the log in cfg.Dir, recovers what a crash left behind and starts the committer. It answers a *TamperError,
// and changes nothing, when records that were acknowledged are missing or changed as far as the end of the log shows; use Verify
// for the whole.
func Open(cfg Config) (*Log, error) { return open(cfg, realDisk()) }

func open(cfg Config, d disk) (*Log, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := d.makeDir(filepath.Clean(cfg.Dir)); err != nil {
		return nil, fmt.Errorf("create audit folder: %w", err)
	}
	lock, err := lockFile(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock audit folder %s: %w", cfg.Dir, err)
	}
	l := &Log{
		cfg: cfg, disk: d, lock: lock,
		wake: make(chan struct{}, 1), closing: make(chan struct{}), done: make(chan struct{}),
		batch: newBatch(), room: make(chan struct{}), changed: make(chan struct{}),
	}
	if cfg.Key != nil {
		l.kid = KeyID(cfg.Key.Public().(ed25519.PublicKey))
	}
	if err := l.load(nil); err != nil {
		l.closeFiles()
		_ = lock.Close()
		return nil, fmt.Errorf("open audit log %s: %w", cfg.Dir, err)
	}
	go l.run()
	return l, nil
}

// Append adds a record and returns at once with a ticket, or an error: ErrBody, or one that wraps ErrUnavailable. The order in
// which calls return is the order in the log. The body is kept compacted, with <, >, &, U+2028 and U+2029 escaped, so that the
// line passes through encoding/json unchanged. It blocks, for AppendTimeout at most, only while MaxPending bytes wait for the disk.
func (l *Log) Append(body []byte) (*Ticket, error) {
	body, err := canonical(body)
	if err != nil {
		return nil, err
	}
	return l.append(body, reserveBytes, false)
}

// AppendMarshalled is Append for a body that encoding/json.Marshal or Event.Encode has just made: it has the spelling already,
// and looking for it again would cost as much as all the rest.
func (l *Log) AppendMarshalled(body []byte) (*Ticket, error) {
	return l.append(body, reserveBytes, false)
}

// appendSoon is AppendMarshalled for a record that nobody waits for: it becomes durable with the next one, or after soonTime. A
// disk that is not busy with it is free for the record that somebody waits for.
func (l *Log) appendSoon(body []byte) (*Ticket, error) { return l.append(body, reserveBytes, true) }

// soonTime is how long a record that nobody waits for may wait for others.
const soonTime = 10 * time.Millisecond

// appendReserved is AppendMarshalled that may use the reserve of a full log: for the event that says that the log is full.
func (l *Log) appendReserved(body []byte) (*Ticket, error) {
	return l.append(body, checkpointSpare, false)
}

func (l *Log) append(body []byte, spare int64, soon bool) (*Ticket, error) {
	if len(body) == 0 || len(body) > MaxBodyBytes {
		return nil, ErrBody
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > l.cfg.MaxPending {
		if err := l.waitForRoom(); err != nil {
			return nil, err
		}
	}
	if err := l.refusal(); err != nil {
		return nil, err
	}
	var durable uint64
	if l.batch.n == 0 {
		durable = l.durable.Seq
	}
	start := len(l.buf)
	l.buf = appendLine(l.buf, l.seq+1, l.prev, time.Now(), durable, body)
	n := int64(len(l.buf) - start + 1)
	if !l.fits(n, spare) {
		l.buf = l.buf[:start]
		return nil, ErrFull
	}
	l.seq++
	l.prev = hashOf(l.buf[start:])
	l.buf = append(l.buf, '\n')
	l.total += n
	b := l.batch
	b.n++
	switch {
	case !soon:
		l.hurry(b)
	case !b.due && b.soon == nil:
		b.soon = time.AfterFunc(soonTime, func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.hurry(b)
		})
	}
	return &Ticket{seq: l.seq, b: b, l: l}, nil
}

// fits reports whether n bytes more are within the budget. A log that was full stays so until an eighth is free again, or each
// small event would be taken and each large one refused. Called with mu held.
func (l *Log) fits(n, spare int64) bool {
	limit := l.cfg.MaxBytes - spare
	if l.cfg.MaxBytes == 0 {
		return true
	}
	if spare != reserveBytes {
		return l.total+n <= limit
	}
	if l.full {
		limit -= limit / 8
	}
	l.full = l.total+n > limit
	return !l.full
}

// refusal says why nothing can be appended. Called with mu held.
func (l *Log) refusal() error {
	switch {
	case l.closed:
		return ErrClosed
	case l.bad != nil:
		return fmt.Errorf("%w: %w", ErrUnavailable, l.bad)
	}
	return nil
}

// waitForRoom is called with mu held and returns with it held.
func (l *Log) waitForRoom() error {
	timeout := time.NewTimer(l.cfg.AppendTimeout)
	defer timeout.Stop()
	for len(l.buf) > l.cfg.MaxPending && l.refusal() == nil {
		room := l.room
		l.mu.Unlock()
		select {
		case <-room:
			l.mu.Lock()
		case <-timeout.C:
			l.mu.Lock()
			return ErrBusy
		}
	}
	return nil
}

// hurry has b committed now. Called with mu held.
func (l *Log) hurry(b *batch) {
	if b.due {
		return
	}
	b.due = true
	if b.soon != nil {
		b.soon.Stop()
	}
	l.poke()
}

func (l *Log) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// canonical gives the spelling of body that encoding/json leaves alone.
func canonical(body []byte) ([]byte, error) {
	if len(body) > MaxBodyBytes || !utf8.Valid(body) {
		return nil, ErrBody
	}
	var b bytes.Buffer
	b.Grow(len(body))
	if err := json.Compact(&b, body); err != nil {
		return nil, ErrBody
	}
	if hasEscapable(b.Bytes()) {
		var e bytes.Buffer
		json.HTMLEscape(&e, b.Bytes())
		b = e
	}
	if b.Len() > MaxBodyBytes {
		return nil, ErrBody
	}
	return b.Bytes(), nil
}

// hasEscapable reports whether encoding/json would escape something in p: <, >, &, U+2028 or U+2029. It may say yes for nothing.
func hasEscapable(p []byte) bool {
	return bytes.IndexByte(p, '<') >= 0 || bytes.IndexByte(p, '>') >= 0 || bytes.IndexByte(p, '&') >= 0 || bytes.Contains(p, []byte("\xe2\x80"))
}

// Head is the last durable record; Genesis for an empty log.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// Oldest is the number of the oldest record that is still held; the next number when there is none.
func (l *Log) Oldest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.oldest()
}

func (l *Log) oldest() uint64 {
	if len(l.segs) == 0 {
		return l.durable.Seq + 1
	}
	return l.segs[0].first
}

// Changed gives a channel that is closed when Head next moves, or the log closes. Take it before Head or Read, then wait on it.
func (l *Log) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Status tells how the log is, for health pages.
type Status struct {
	Head     Head
	Oldest   uint64
	Bytes    int64 // of the budget
	MaxBytes int64
	Err      error // why nothing can be appended; nil while it can
}

// Status reports the log's state.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Status{Head: l.durable, Oldest: l.oldest(), Bytes: l.total, MaxBytes: l.cfg.MaxBytes, Err: l.refusal()}
	if s.Err == nil && l.full && !l.fits(512, reserveBytes) {
		s.Err = ErrFull
	}
	return s
}

// Release says that records up to and including through are held elsewhere (the relay acknowledged them). Whole old segments
// are then deleted, in the background, while the log takes more than half of MaxBytes. Without a budget nothing is deleted.
func (l *Log) Release(through uint64) {
	l.mu.Lock()
	l.released = max(l.released, min(through, l.durable.Seq))
	l.mu.Unlock()
	l.poke()
}

// keep takes a Release back: records behind after are not held elsewhere, after all. What was deleted is gone.
func (l *Log) keep(after uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.released = min(l.released, after)
}

// pressed reports whether a Release would delete something now.
func (l *Log) pressed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cfg.MaxBytes > 0 && l.total > l.cfg.MaxBytes/2
}

// Close commits what was appended, writes a checkpoint, joins the committer and lets go of the folder. Later calls do nothing. The
// error says what of that did not happen; tickets tell of each record.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		close(l.closing)
	}
	<-l.done
	return l.closeErr
}
