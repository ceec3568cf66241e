package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// run is the committer.
func (l *Log) run() {
	defer close(l.done)
	checkpoint := time.NewTicker(l.cfg.CheckpointInterval)
	defer checkpoint.Stop()
	retry := time.NewTicker(l.cfg.RetryEvery)
	defer retry.Stop()
	for {
		select {
		case <-l.wake:
			// Callers that the last commit woke are about to append again: let them, and they share this fsync.
			runtime.Gosched()
			l.commit()
			l.reserve()
			l.prune()
		case <-checkpoint.C:
			l.checkpoint(true)
		case <-retry.C:
			l.recover()
		case <-l.closing:
			l.finish()
			return
		}
	}
}

func (l *Log) finish() {
	l.commit()
	l.checkpoint(true)
	l.mu.Lock()
	bad := l.bad
	close(l.changed)
	l.changed = make(chan struct{})
	close(l.changed) // whoever asks later must not wait for ever
	l.mu.Unlock()
	if bad == nil && l.file != nil && l.reserved > l.size {
		_ = l.file.Truncate(l.size) // where it fails, zeros stay, which do no harm
	}
	l.closeFiles()
	l.closeErr = errors.Join(bad, l.lock.Close())
}

func (l *Log) closeFiles() {
	if l.file != nil {
		_ = l.disk.close(l.file)
		l.file, l.reserved = nil, 0
	}
	if l.cpFile != nil {
		_ = l.disk.close(l.cpFile)
		l.cpFile = nil
	}
}

// commit makes everything appended so far durable and tells who waits.
func (l *Log) commit() {
	l.mu.Lock()
	b, buf, head, first := l.batch, l.buf, Head{Seq: l.seq, Hash: l.prev}, l.durable.Seq+1
	if b.n == 0 || l.bad != nil {
		l.mu.Unlock()
		return
	}
	b.due = true
	if b.soon != nil {
		b.soon.Stop()
	}
	l.batch, l.buf = newBatch(), l.spare[:0]
	close(l.room)
	l.room = make(chan struct{})
	l.mu.Unlock()

	off, err := l.store(buf, first)
	if err != nil {
		l.fail(b, err)
		return
	}
	l.spare = buf
	if cap(l.spare) > 1<<20 {
		l.spare = nil
	}
	l.mu.Lock()
	l.durable = head
	seg := l.segs[len(l.segs)-1]
	seg.size = l.size
	if n := len(seg.marks); n == 0 || off-seg.marks[n-1].off >= 64<<10 {
		seg.marks = append(seg.marks, mark{first, off})
	}
	close(b.done)
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	if l.cfg.Key != nil && head.Seq-l.cpSeq >= uint64(l.cfg.CheckpointEvery) {
		l.checkpoint(false)
	}
}

// store writes lines that begin with record first and syncs them. It gives the offset that they were written at.
func (l *Log) store(lines []byte, first uint64) (int64, error) {
	fresh := false
	if l.file == nil || l.size >= l.cfg.SegmentBytes {
		if err := l.rotate(first); err != nil {
			return 0, err
		}
		fresh = true
	}
	off := l.size
	if err := l.disk.write(l.file, lines); err != nil {
		return 0, fmt.Errorf("write segment: %w", err)
	}
	l.size += int64(len(lines))
	if err := l.disk.sync(l.file); err != nil {
		return 0, fmt.Errorf("sync segment: %w", err)
	}
	if fresh {
		if err := l.disk.syncDir(l.cfg.Dir); err != nil {
			return 0, fmt.Errorf("sync audit folder: %w", err)
		}
	}
	return off, nil
}

// reserve fills the active segment with zeros ahead of its records: syncing bytes that are there already costs no commit of the
// file system's journal, for which records would wait. It is done when nobody waits, and it is a courtesy: without room on
// the disk the log goes on without. Readers take zeros at the end of a segment for its end.
func (l *Log) reserve() {
	if l.file == nil || l.cfg.reserve == 0 || l.reserved < 0 || l.reserved-l.size >= l.cfg.reserve/2 {
		return
	}
	from := max(l.size, l.reserved)
	if err := l.disk.grow(l.file, from, l.size+l.cfg.reserve-from); err != nil {
		l.cfg.Logger.Warn("the audit log cannot reserve room on the disk ahead of its records; it goes on, with slower syncs", "err", err, "dir", l.cfg.Dir)
		_ = l.file.Truncate(from)
		l.reserved = -1 // not again for this segment
		return
	}
	if err := l.disk.sync(l.file); err != nil {
		l.fail(nil, fmt.Errorf("sync segment: %w", err))
		return
	}
	l.reserved = l.size + l.cfg.reserve
}

// rotate begins the segment whose first record is first. A checkpoint stands at each boundary, so that what is left after a
// Release still hangs on something signed.
func (l *Log) rotate(first uint64) error {
	if l.file != nil {
		if l.reserved > l.size { // a segment that is done ends with its last record
			if err := errors.Join(l.file.Truncate(l.size), l.disk.sync(l.file)); err != nil {
				return fmt.Errorf("end segment: %w", err)
			}
		}
		_ = l.disk.close(l.file) // all of it is synced
		l.file, l.reserved = nil, 0
	}
	if err := l.writeCheckpoint(true); err != nil {
		return err
	}
	f, err := l.disk.open(segmentPath(l.cfg.Dir, first), os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	l.file, l.size = f, 0
	l.mu.Lock()
	l.segs = append(l.segs, &segment{first: first})
	l.mu.Unlock()
	return nil
}

// fail makes the log bad: b and everything appended since are refused, and the file is not touched again.
func (l *Log) fail(b *batch, err error) {
	l.closeFiles()
	l.mu.Lock()
	l.bad = err
	refused := fmt.Errorf("%w: %w", ErrUnavailable, err)
	n := 0
	for _, x := range []*batch{b, l.batch} {
		if x != nil {
			n += x.n
			x.err = refused
			close(x.done)
		}
	}
	l.batch, l.buf = newBatch(), nil
	l.seq, l.prev = l.durable.Seq, l.durable.Hash
	close(l.room)
	l.room = make(chan struct{})
	durable := l.durable.Seq
	l.mu.Unlock()
	l.cfg.Logger.Error("audit log fails closed", "err", err, "dir", l.cfg.Dir, "refused", n, "durable", durable)
}

// recover tries to take up a log that went bad.
func (l *Log) recover() {
	l.mu.Lock()
	bad, keep := l.bad, l.durable
	l.mu.Unlock()
	if bad == nil {
		return
	}
	if err := l.load(&keep); err != nil {
		l.closeFiles()
		if !l.recovering {
			l.cfg.Logger.Error("audit log cannot recover yet", "err", err, "dir", l.cfg.Dir)
			l.recovering = true
		}
		return
	}
	l.recovering = false
	l.mu.Lock()
	l.bad = nil
	l.mu.Unlock()
	l.cfg.Logger.Warn("audit log has recovered", "dir", l.cfg.Dir, "durable", keep.Seq, "after", bad)
}

// prune deletes released segments while the log takes more than half of its budget.
func (l *Log) prune() {
	l.mu.Lock()
	var drop []*segment
	left := l.total
	for l.bad == nil && l.cfg.MaxBytes > 0 && left > l.cfg.MaxBytes/2 && len(drop)+1 < len(l.segs) {
		seg, next := l.segs[len(drop)], l.segs[len(drop)+1]
		// The next segment must hold a durable record: its prev is then the only thing needed of this one.
		if next.first-1 > l.released || next.first > l.durable.Seq {
			break
		}
		drop = append(drop, seg)
		left -= seg.size
	}
	l.mu.Unlock()
	if len(drop) == 0 {
		return
	}
	for _, seg := range drop {
		if err := l.disk.remove(segmentPath(l.cfg.Dir, seg.first)); err != nil && !errors.Is(err, os.ErrNotExist) {
			l.cfg.Logger.Warn("released audit segment cannot be deleted", "err", err)
			return
		}
		l.mu.Lock()
		l.segs = l.segs[1:]
		l.total -= seg.size
		l.mu.Unlock()
	}
	if err := l.trimCheckpoints(l.Oldest() - 1); err != nil {
		l.fail(nil, err)
	}
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%020d.log", first))
}
