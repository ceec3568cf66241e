package audit

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// crashChild appends with several callers until it is killed and prints each number once it is acknowledged.
func crashChild(dir string) {
	l, err := Open(Config{Dir: dir, Key: testKey, Source: "child", SegmentBytes: 4000, CheckpointEvery: 50, MaxBytes: 4 << 20})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var mu sync.Mutex
	for c := range 8 {
		go func() {
			for i := 0; ; i++ {
				b := fmt.Sprintf(`{"pid":%d,"c":%d,"i":%d,"pad":"%s"}`, os.Getpid(), c, i, strings.Repeat("x", i%300))
				tk, err := l.Append([]byte(b))
				if err == nil {
					err = tk.Wait(context.Background())
				}
				mu.Lock()
				if err != nil {
					fmt.Println("error", err)
					os.Exit(1)
				}
				fmt.Println(tk.Seq(), b) // one write each: os.Stdout is not buffered
				mu.Unlock()
				if seq := tk.Seq(); seq%500 == 0 {
					l.Release(seq - 400)
				}
			}
		}()
	}
	select {}
}

// TestKill9 kills a process in the midst of appending, again and again on the same log. What it said was acknowledged is there, under
// its number, and the chain holds.
func TestKill9(t *testing.T) {
	kills := 25
	if s := os.Getenv("AUDIT_KILLS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		kills = n
	}
	if testing.Short() {
		kills = 5
	}
	dir := t.TempDir()
	acked, total := map[uint64]string{}, 0
	for k := range kills {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "AUDIT_CRASH_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Killed after it said so much, wherever its committer then is.
		enough, said := 1+rand.IntN(400), 0
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				break // killed; a last line without its end was not said
			}
			seq, b, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, err := strconv.ParseUint(seq, 10, 64)
			if err != nil {
				t.Fatalf("child says %q", line)
			}
			if acked[n] != "" {
				t.Fatalf("record %d was acknowledged twice", n)
			}
			acked[n] = b
			total++
			if said++; said == enough {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		if k%2 == 1 {
			continue // let the child itself recover, too
		}
		h := &history{acked: acked}
		h.check(t, Config{Dir: dir, Key: testKey, Source: "child", SegmentBytes: 4000, MaxBytes: 4 << 20})
	}
	if total < kills {
		t.Fatalf("only %d records in %d rounds", total, kills)
	}
	t.Logf("%d kills, %d records acknowledged, none lost", kills, total)
}
