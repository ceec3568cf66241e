package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// deadline notes the last deadline for writing.
type deadline struct {
	*httptest.ResponseRecorder
	last chan time.Time
}

func (d deadline) SetWriteDeadline(t time.Time) error {
	select {
	case <-d.last:
	default:
	}
	d.last <- t
	return nil
}

// Who waits with a piece of the answer can lift the deadline, but not that of a caller who was cut.
func TestDeadlineOfACallerWhoWasCutStays(t *testing.T) {
	d := deadline{httptest.NewRecorder(), make(chan time.Time, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	p, end := keepPace(ctx, d)
	defer end()
	rc := http.NewResponseController(p)
	_, _ = p.Write([]byte("x"))
	if at := <-d.last; at.IsZero() {
		t.Error("a write has no deadline")
	}
	if err := rc.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if at := <-d.last; !at.IsZero() {
		t.Errorf("not lifted: %s", at)
	}
	cancel()
	cut := <-d.last
	if left := time.Until(cut); left > cutTime {
		t.Errorf("cut with %s", left)
	}
	_ = rc.SetWriteDeadline(time.Time{})
	select {
	case at := <-d.last:
		t.Errorf("the deadline of the cut became %s", at)
	default:
	}
}
