package audit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPeekSeesTheNewestWholeRecord(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	if g, err := Peek(dir); err != nil || g.Last.Seq != 0 || g.Segments != 0 {
		t.Errorf("no folder: %+v %v", g, err)
	}
	l, err := Open(Config{Dir: dir, Source: "agt_1", Key: testKey, SegmentBytes: 50_000})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	body := []byte(`"` + strings.Repeat("x", 1000) + `"`)
	var last *Ticket
	for range 300 {
		if last, err = l.Append(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	g, err := Peek(dir)
	if err != nil || g.Last.Head() != l.Head() || g.Oldest != 1 || g.Segments < 2 || g.Bytes < 300_000 {
		t.Errorf("%d segments, %d bytes, last %d: %v", g.Segments, g.Bytes, g.Last.Seq, err)
	}
	// A line that is being written is not seen.
	firsts, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(segmentPath(dir, firsts[len(firsts)-1]), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(`{"seq":301,"prev`); err != nil {
		t.Fatal(err)
	}
	if again, err := Peek(dir); err != nil || again.Last.Head() != g.Last.Head() {
		t.Errorf("%v %v", again.Last.Head(), err)
	}
}
