package audit

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("AUDIT_CRASH_CHILD"); dir != "" {
		crashChild(dir)
	}
	goleak.VerifyTestMain(m)
}

var testKey = ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))

func testPub() ed25519.PublicKey { return testKey.Public().(ed25519.PublicKey) }

func openTest(t testing.TB, cfg Config) *Log {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func add(t testing.TB, l *Log, body string) uint64 {
	t.Helper()
	tk, err := l.Append([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := tk.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	return tk.Seq()
}

func body(i int) string { return fmt.Sprintf(`{"n":%d}`, i) }

// fill makes a closed log of n records in small segments.
func fill(t testing.TB, cfg Config, n int) {
	t.Helper()
	l := openTest(t, cfg)
	for i := 1; i <= n; i++ {
		add(t, l, body(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func mustVerify(t testing.TB, dir string, expect ...Head) Report {
	t.Helper()
	r, err := Verify(dir, testPub(), expect...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAppendReadReopen(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Source: "agt_x", Key: testKey, SegmentBytes: 2000, CheckpointEvery: 7}
	var head Head
	for round := range 3 {
		l := openTest(t, cfg)
		if got := l.Head(); round > 0 && got != head {
			t.Fatalf("head after reopening is %v, was %v", got, head)
		}
		for i := range 50 {
			if seq := add(t, l, body(round*50+i+1)); seq != uint64(round*50+i+1) {
				t.Fatalf("seq %d", seq)
			}
		}
		head = l.Head()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Append([]byte(`1`)); !errors.Is(err, ErrUnavailable) || !errors.Is(err, ErrClosed) {
			t.Fatalf("append after close: %v", err)
		}
	}
	l := openTest(t, cfg)
	for _, batch := range []int{1, 7, 1000} {
		after := uint64(0)
		for {
			rs, err := l.Read(after, batch)
			if err != nil {
				t.Fatal(err)
			}
			if len(rs) == 0 {
				break
			}
			for _, r := range rs {
				after++
				if r.Seq != after || string(r.Body) != body(int(after)) {
					t.Fatalf("record %d: %d %s", after, r.Seq, r.Body)
				}
				// The line survives a trip inside JSON.
				again, err := json.Marshal([]json.RawMessage{r.Line})
				if err != nil || string(again) != "["+string(r.Line)+"]" {
					t.Fatalf("%s became %s (%v)", r.Line, again, err)
				}
			}
		}
		if after != 150 {
			t.Fatalf("read %d records", after)
		}
	}
	rep := mustVerify(t, cfg.Dir, head)
	if rep.Records != 150 || rep.Last != head || rep.Proven != 150 || !rep.Anchored {
		t.Fatalf("%+v", rep)
	}
}

func TestOneOwner(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	openTest(t, cfg)
	if _, err := Open(cfg); err == nil {
		t.Fatal("a second log opened the same folder")
	}
}

func TestGroupCommit(t *testing.T) {
	l := openTest(t, Config{Dir: t.TempDir(), Key: testKey, Source: "a"})
	var wg sync.WaitGroup
	start := time.Now()
	const callers, each = 256, 20
	seen := make([]bool, callers*each+1)
	var mu sync.Mutex
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				tk, err := l.Append(fmt.Appendf(nil, `{"c":%d,"i":%d}`, c, i))
				if err == nil {
					err = tk.Wait(t.Context())
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[tk.Seq()] {
					t.Errorf("two records have number %d", tk.Seq())
				}
				seen[tk.Seq()] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	t.Logf("%.0f/s", callers*each/time.Since(start).Seconds())
	if l.Head().Seq != callers*each {
		t.Fatal(l.Head())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, l.cfg.Dir, l.Head())
}

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	firsts, err := listSegments(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range firsts {
		out = append(out, filepath.Base(segmentPath(dir, f)))
	}
	return out
}

func BenchmarkAppendWait(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			l := openTest(b, Config{Dir: b.TempDir(), Key: testKey, Source: "a"})
			payload, err := json.Marshal(map[string]string{"statement": string(make([]byte, 40)), "kind": "operation.intent"})
			if err != nil {
				b.Fatal(err)
			}
			var wg sync.WaitGroup
			b.ResetTimer()
			for c := range callers {
				wg.Go(func() {
					for i := c; i < b.N; i += callers {
						tk, err := l.Append(payload)
						if err == nil {
							err = tk.Wait(context.Background())
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkBareSync is what one record costs at the least here.
func BenchmarkBareSync(b *testing.B) {
	f, err := os.OpenFile(filepath.Join(b.TempDir(), "f"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	line := make([]byte, 400)
	b.ResetTimer()
	for range b.N {
		if _, err := f.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// A record that nobody waits for becomes durable by itself, with one that somebody waits for, and when somebody does.
func TestAppendSoon(t *testing.T) {
	l, err := Open(Config{Dir: t.TempDir(), Source: "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	durable := func(seq uint64) bool {
		deadline := time.After(10 * time.Second)
		for {
			changed := l.Changed()
			if l.Head().Seq >= seq {
				return true
			}
			select {
			case <-changed:
			case <-deadline:
				return false
			}
		}
	}
	if _, err := l.appendSoon([]byte(`{}`)); err != nil || !durable(1) {
		t.Fatal("by itself", err)
	}
	if _, err := l.appendSoon([]byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	tk, err := l.Append([]byte(`{}`))
	if err == nil {
		err = tk.Wait(t.Context())
	}
	if err != nil || l.Head().Seq != 3 {
		t.Fatal("with another", err, l.Head().Seq)
	}
	tk, err = l.appendSoon([]byte(`{}`))
	if err == nil {
		err = tk.Wait(t.Context())
	}
	if err != nil || l.Head().Seq != 4 {
		t.Fatal("waited for", err)
	}
}
