package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// Feed carries the durable records of a log on, in order and at least once: after a crash or an error those that were not
// acknowledged are delivered again, and event ids tell doubles. Each feed has a cursor file of its own.
//
// A record that the receiver will never take is a poison record. deliver says so by an error that wraps *PoisonError. With
// SetAside the feed hands the record to it, and once SetAside returned nil goes on behind it, so that one record never stalls
// the rest. Without SetAside (a chain that must arrive whole, as from agent to relay) it is retried like any other error and
// logged each time.
type Feed struct {
	Log        *Log
	CursorFile string // written atomically; its folder must exist. A file in the log's folder shares the log's fate
	Batch      int    // most records in a delivery; 0: 500

	// Pace is the least time between two deliveries that are not full: what comes meanwhile goes together, and costs the
	// receiver one synced write. The first after a pause goes at once. 0: none.
	Pace time.Duration
	// SaveEvery is how long the cursor file may lag behind what was acknowledged; 0: not at all. What a crash takes of it is
	// delivered again. Nothing is released that the file does not say.
	SaveEvery time.Duration

	Release    bool // release in the log what was acknowledged
	MinBackoff time.Duration
	MaxBackoff time.Duration // full jitter up to MinBackoff·2ⁿ, at most MaxBackoff; 0: 500 ms and 60 s
	SetAside   func(ctx context.Context, r Record, reason error) error
	Logger     *slog.Logger // nil: none

	disk disk
}

// PoisonError says that the receiver refuses one record for good. Records before it may be acknowledged in the same call.
type PoisonError struct {
	Seq uint64
	Err error
}

func (e *PoisonError) Error() string {
	return fmt.Sprintf("record %d is refused for good: %v", e.Seq, e.Err)
}

func (e *PoisonError) Unwrap() error { return e.Err }

// ErrCursor says that a cursor does not belong to the log: it points behind its end, or to another record than the one it saw.
// The log was replaced or cut. An operator decides; removing the cursor file delivers everything again.
var ErrCursor = errors.New("feed cursor does not belong to this log")

// Run delivers until ctx ends (its error is returned), the log is closed (nil) or the cursor cannot be read or does not fit
// (ErrCursor). deliver gets at least one record and returns the number of the last that the receiver holds durably; it is
// believed even with an error. A number below the cursor, with a nil error, takes the feed back (the receiver lost some).
// Records slices are not reused.
func (f *Feed) Run(ctx context.Context, deliver func(ctx context.Context, records []Record) (lastAcked uint64, err error)) (err error) {
	if f.disk.open == nil {
		f.disk = realDisk()
	}
	log := f.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	batch := f.Batch
	if batch <= 0 {
		batch = 500
	}
	cursor, err := f.start()
	if err != nil {
		return err
	}
	saved, since := cursor, time.Now() // since: when the file began to lag, or was written
	save := func() error {
		if saved == cursor {
			return nil
		}
		if err := f.save(cursor); err != nil {
			return err
		}
		saved = cursor
		if f.Release {
			f.Log.Release(saved.Seq)
		}
		return nil
	}
	defer func() {
		if serr := save(); serr != nil {
			err = errors.Join(err, serr)
		}
	}()
	var sent time.Time
	for tries := 0; ; {
		changed, closed := f.Log.Changed(), f.Log.isClosed()
		if new, wait := f.Log.Head().Seq-cursor.Seq, time.Until(sent.Add(f.Pace)); 0 < new && new < uint64(batch) && wait > 0 && !closed {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		records, err := f.Log.Read(cursor.Seq, batch)
		if errors.Is(err, ErrReleased) {
			return fmt.Errorf("%w: record %d is no longer held", ErrCursor, cursor.Seq+1)
		}
		if err == nil && len(records) == 0 {
			if closed {
				return nil
			}
			var lag <-chan time.Time
			if saved != cursor {
				lag = time.After(time.Until(since.Add(f.SaveEvery)))
			}
			select {
			case <-changed:
				continue
			case <-lag:
				if err = save(); err == nil {
					continue
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		moved := false
		if err == nil {
			var next Head
			next, err = f.deliver(ctx, cursor, records, deliver)
			sent = time.Now()
			moved = next.Seq > cursor.Seq
			back := next.Seq < cursor.Seq
			if f.Release && back {
				f.Log.keep(next.Seq) // before the cursor: what the receiver lost must not go here, too
			}
			if saved == cursor {
				since = sent
			}
			cursor = next
			if back || sent.Sub(since) >= f.SaveEvery || f.Release && f.Log.pressed() {
				err = errors.Join(err, save())
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if moved {
			tries = 0
		}
		if err == nil && moved {
			continue
		}
		pause := f.backoff(tries)
		tries++
		log.Warn("audit feed waits before it tries again", "cursor", cursor.Seq, "pause", pause, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// deliver hands over one batch and gives the cursor after it.
func (f *Feed) deliver(ctx context.Context, cursor Head, records []Record,
	to func(context.Context, []Record) (uint64, error)) (Head, error) {
	acked, err := to(ctx, records)
	last := records[len(records)-1].Seq
	var poison *PoisonError
	switch {
	case acked > last:
		return cursor, fmt.Errorf("the receiver acknowledged record %d, which it was not sent", acked)
	case acked < cursor.Seq && err == nil:
		return f.back(acked)
	case acked > cursor.Seq:
		cursor = records[acked-records[0].Seq].Head()
	}
	if f.SetAside != nil && errors.As(err, &poison) && poison.Seq == cursor.Seq+1 && poison.Seq <= last {
		r := records[poison.Seq-records[0].Seq]
		if aerr := f.SetAside(ctx, r, poison.Err); aerr != nil {
			return cursor, errors.Join(err, aerr)
		}
		return r.Head(), nil
	}
	return cursor, err
}

// back takes the cursor to an earlier record, or to the oldest that is still held: a receiver that asks for more must not
// stop the feed for good.
func (f *Feed) back(seq uint64) (Head, error) {
	if oldest := f.Log.Oldest(); seq+1 <= oldest {
		if oldest == 1 {
			return Genesis, nil
		}
		return Head{Seq: oldest - 1}, nil
	}
	r, err := f.Log.Read(seq-1, 1)
	if err != nil || len(r) == 0 {
		return Head{Seq: seq}, err
	}
	return r[0].Head(), nil
}

func (f *Feed) backoff(tries int) time.Duration {
	least, most := f.MinBackoff, f.MaxBackoff
	if least <= 0 {
		least = 500 * time.Millisecond
	}
	if most <= 0 {
		most = time.Minute
	}
	d := most
	if tries < 30 {
		d = min(most, least<<tries)
	}
	return rand.N(d) + 1 //nolint:gosec // jitter
}

// start reads the cursor and checks it against the log.
func (f *Feed) start() (Head, error) {
	c, ok, err := ReadCursor(f.CursorFile)
	if err != nil {
		return c, err
	}
	if !ok {
		return Head{Seq: f.Log.Oldest() - 1}, nil
	}
	if head := f.Log.Head(); c.Seq > head.Seq {
		return c, fmt.Errorf("%w: it is at record %d and the log ends at %d", ErrCursor, c.Seq, head.Seq)
	}
	if c.Seq >= f.Log.Oldest() && c.Hash != "" {
		r, err := f.Log.Read(c.Seq-1, 1)
		if err != nil {
			return c, err
		}
		if len(r) == 0 || r[0].Hash != c.Hash {
			return c, fmt.Errorf("%w: record %d is another one", ErrCursor, c.Seq)
		}
	}
	return c, nil
}

// ReadCursor reads a cursor file. ok is false when there is none.
func ReadCursor(path string) (c Head, ok bool, err error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, false, nil
	}
	if err != nil {
		return c, false, fmt.Errorf("read feed cursor: %w", err)
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return c, false, fmt.Errorf("%w: the file %s is not a cursor", ErrCursor, filepath.Base(path))
	}
	return c, true, nil
}

func (f *Feed) save(c Head) error {
	data, err := json.Marshal(c)
	if err == nil {
		err = f.disk.replace(filepath.Dir(f.CursorFile), f.CursorFile, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("write feed cursor: %w", err)
	}
	return nil
}

func (l *Log) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}
