package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// A Progress draws one line on a terminal: a bar, bytes, rate and time left. Where there is no terminal it draws
// nothing. It starts no goroutine: it draws while bytes are added, ten times a second at most. Not for concurrent use.
type Progress struct {
	w          io.Writer
	label      string
	start, was time.Time
	from       int64 // bytes that were there before we began
	done       int64
	total      int64
	width      int
}

// NewProgress starts a line on t.Err. total < 0 means unknown; from is what a resumed transfer has already.
func NewProgress(t *Term, label string, from, total int64) *Progress {
	p := &Progress{label: Clean(label), start: time.Now(), from: from, done: from, total: total}
	if IsTerminal(t.Err) {
		p.w = t.Err
	}
	return p
}

// Write counts len(b), so that a Progress can stand in an io.TeeReader or io.MultiWriter.
func (p *Progress) Write(b []byte) (int, error) {
	p.Add(int64(len(b)))
	return len(b), nil
}

// Add counts n bytes.
func (p *Progress) Add(n int64) {
	p.done += n
	if now := time.Now(); p.w != nil && now.Sub(p.was) >= 100*time.Millisecond {
		p.was = now
		p.draw(now)
	}
}

// From says that n bytes are there before the transfer begins, or begins anew: rate and time left are of the rest.
func (p *Progress) From(n int64) { p.from, p.done, p.start = n, n, time.Now() }

// Done draws the last state and ends the line.
func (p *Progress) Done() {
	if p.w != nil {
		p.draw(time.Now())
		_, _ = io.WriteString(p.w, "\n")
	}
}

func (p *Progress) draw(now time.Time) {
	line := p.line(now)
	n := Width(line)
	_, _ = io.WriteString(p.w, "\r"+line+strings.Repeat(" ", max(0, p.width-n)))
	p.width = n
}

func (p *Progress) line(now time.Time) string {
	rate := 0.0
	if s := now.Sub(p.start).Seconds(); s > 0 {
		rate = float64(p.done-p.from) / s
	}
	if p.total < 0 {
		return fmt.Sprintf("%s  %s  %s/s", p.label, Bytes(p.done), Bytes(int64(rate)))
	}
	part := 1.0
	if p.total > 0 {
		part = min(1, float64(p.done)/float64(p.total))
	}
	const bar = 24
	full := int(part * bar)
	left := "--:--"
	if rate > 0 {
		d := time.Duration(float64(p.total-p.done) / rate * float64(time.Second)).Round(time.Second)
		left = fmt.Sprintf("%d:%02d", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%s  [%s%s] %3.0f%%  %s of %s  %s/s  %s left", p.label, strings.Repeat("#", full), strings.Repeat(".", bar-full),
		part*100, Bytes(p.done), Bytes(p.total), Bytes(int64(rate)), left)
}

// Bytes prints n as people read it, in steps of 1024: "999 B", "1.5 MiB".
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		f /= 1024
		if f < 1023.95 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
