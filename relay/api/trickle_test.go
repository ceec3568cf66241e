package api

import (
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// conned answers on a recorder and has its deadlines on a conn, as a server's answer does.
type conned struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (c conned) SetReadDeadline(t time.Time) error  { return c.conn.SetReadDeadline(t) }
func (c conned) SetWriteDeadline(t time.Time) error { return c.conn.SetWriteDeadline(t) }

// sender is a caller's upload: so many bytes after each pause, for so long, towards a target that takes so long for each read.
type sender struct {
	every  time.Duration
	bytes  int
	target time.Duration
	lasts  time.Duration
}

// upload reads it to its end, and tells when that was and whether it was cut.
func (s sender) upload(t *testing.T) (after time.Duration, cut bool) {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	p, end := keepPace(t.Context(), conned{httptest.NewRecorder(), here})
	defer end()
	began, done := time.Now(), make(chan struct{})
	go func() {
		defer close(done)
		defer there.Close()
		for time.Since(began) < s.lasts {
			time.Sleep(s.every) // the bubble's clock
			if _, err := there.Write(make([]byte, s.bytes)); err != nil {
				return
			}
		}
	}()
	b, buf := newBody(p, here, defaultBodyRate), make([]byte, 32<<10)
	for {
		_, err := b.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			after, cut = time.Since(began), true
		case err == io.EOF:
			after = time.Since(began)
		case err != nil:
			t.Error(err)
		default:
			time.Sleep(s.target)
			continue
		}
		here.Close()
		<-done
		return after, cut
	}
}

// E13: an upload that trickles is cut, however regularly its bytes come; one that pauses, or waits for its target, is not.
func TestUploadThatTricklesIsCut(t *testing.T) {
	for name, c := range map[string]struct {
		s   sender
		cut time.Duration // 0: not at all
	}{
		"E13 nothing":                {sender{every: time.Hour, bytes: 1, lasts: time.Hour}, time.Minute},
		"E13 a byte every 59 s":      {sender{every: 59 * time.Second, bytes: 1, lasts: time.Hour}, 61 * time.Second},
		"E13 a byte a second":        {sender{every: time.Second, bytes: 1, lasts: time.Hour}, 61 * time.Second},
		"E13 half of the rate":       {sender{every: time.Second, bytes: 512, lasts: time.Hour}, 121 * time.Second},
		"E13 much, then too little":  {sender{every: 30 * time.Second, bytes: 20 << 10, lasts: 3 * time.Hour}, 5 * time.Minute},
		"the rate":                   {sender{every: time.Second, bytes: 1 << 10, lasts: time.Hour}, 0},
		"pauses and bursts":          {sender{every: 55 * time.Second, bytes: 64 << 10, lasts: time.Hour}, 0},
		"a target that takes time":   {sender{bytes: 1, target: 10 * time.Minute, lasts: 5 * time.Hour}, 0},
		"a few bytes that come late": {sender{every: 50 * time.Second, bytes: 3, lasts: time.Second}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				after, cut := c.s.upload(t)
				if cut != (c.cut > 0) || cut && after > c.cut {
					t.Errorf("cut: %v after %s, want %s", cut, after, c.cut)
				}
			})
		})
	}
	t.Run("E13 1,000 slow callers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var all sync.WaitGroup
			for i := range 1000 {
				all.Go(func() {
					s := sender{every: time.Duration(1+i%59) * time.Second, bytes: 1, lasts: time.Hour}
					if after, cut := s.upload(t); !cut || after > 61*time.Second {
						t.Errorf("a byte every %s: cut: %v after %s", s.every, cut, after)
					}
				})
			}
			if after, cut := (sender{every: time.Second, bytes: 8 << 10, lasts: 10 * time.Minute}).upload(t); cut {
				t.Errorf("a good one beside them is cut after %s", after)
			}
			all.Wait()
		})
	})
}
