package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestGrowthIsSeenAndTeethAreNot(t *testing.T) {
	series := func(f func(i int) float64) (v []float64) {
		for i := range 90 {
			v = append(v, f(i))
		}
		return v
	}
	for name, x := range map[string]struct {
		values []float64
		grown  bool
	}{
		"a leak":                 {series(func(i int) float64 { return 100_000 + 1000*float64(i) }), true},
		"warming up, then level": {series(func(i int) float64 { return min(float64(i)*5000, 100_000) }), false},
		"teeth":                  {series(func(i int) float64 { return 100_000 + float64(i%7)*10_000 }), false},
		"falling":                {series(func(i int) float64 { return 200_000 - 1000*float64(i) }), false},
		"a step in the last third": {series(func(i int) float64 {
			if i < 60 {
				return 100_000
			}
			return 130_000
		}), true},
		"small numbers": {series(func(i int) float64 { return float64(i) }), false},
		"nothing":       {nil, false},
	} {
		if middle, last, grown := growth(x.values, 0.1, 40); grown != x.grown {
			t.Errorf("%s: middle third %v, last third %v: grown is %v", name, middle, last, grown)
		}
	}
}

func TestASoakFailsForWhatGrewAndForActsThatFailed(t *testing.T) {
	r := &SoakReport{Tolerance: 0.1, Acts: map[string]int{"connections": 1000, "files": 10}, Failed: map[string]int{"connections": 5, "files": 1}, Failures: []string{"files: put: no"}}
	for i := range 30 {
		r.Looks = append(r.Looks, Look{float64(i), map[string]float64{"relay_memory": 50_000, "relay_descriptors": float64(20 + 4*i), "agent_memory": 20_000}})
	}
	err := r.judge()
	if err == nil {
		t.Fatal("descriptors grew, one file of ten failed, and nothing is said")
	}
	for _, want := range []string{"it grows: relay_descriptors", "files: 1 failed, and 10 were done"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	for _, wrong := range []string{"memory", "connections"} {
		if strings.Contains(err.Error(), wrong) {
			t.Errorf("%s is called a fault: %v", wrong, err)
		}
	}
}

func TestASoakThatCannotJudgeIsRefused(t *testing.T) {
	for name, o := range map[string]SoakOptions{"no time": {Every: time.Second, Tolerance: 0.1}, "fewer than six looks": {For: 5 * time.Second, Every: time.Second, Tolerance: 0.1},
		"no tolerance": {For: time.Minute, Every: time.Second}} {
		if _, err := Soak(t.Context(), o); err == nil {
			t.Errorf("%s: it runs", name)
		}
	}
}

// TestASoakOfAMinute runs all loads through the real programs. A minute is too short to find a leak that is not gross: the
// tolerance says so. make soak takes the time.
func TestASoakOfAMinute(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED, NOT TESTED: memory and descriptors are read from /proc")
	}
	length := time.Minute
	if testing.Short() {
		length = 12 * time.Second
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	var progress bytes.Buffer
	r, err := Soak(t.Context(), SoakOptions{Bin: programs(t), Self: []string{os.Args[0]}, Dir: dir, For: length, Every: time.Second, Tolerance: 0.5, Progress: &progress})
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	for _, kind := range []string{"connections", "pings", "down", "up", "files", "refusals"} {
		if r.Acts[kind] == 0 {
			t.Errorf("none of %s was done", kind)
		}
	}
	if r.Acts["queries"] == 0 && (len(r.Missing) == 0 || os.Getenv("CI") == "true") {
		t.Errorf("no query was made: %v", r.Missing)
	}
	for _, l := range r.Looks {
		for _, k := range soakSlack {
			if l.Held[k.name] <= 0 {
				t.Fatalf("after %.0f s %s is %v", l.Seconds, k.name, l.Held[k.name])
			}
		}
	}
	var out bytes.Buffer
	if err := r.Print(&out); err != nil {
		t.Fatal(err)
	}
	if err := r.Save(filepath.Join(dir, "soak.json")); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
}
