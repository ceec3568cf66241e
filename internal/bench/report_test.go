package bench

import (
	"bytes"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMedianAndQuantile(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.v); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.v, got, c.want)
		}
	}
	var s []float64
	for i := 100; i > 0; i-- {
		s = append(s, float64(i))
	}
	if p50, p99 := quantile(s, 0.5), quantile(s, 0.99); p50 != 51 || p99 != 100 {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
	if got := quantile([]float64{7}, 0.99); got != 7 {
		t.Errorf("of one: %v", got)
	}
}

func TestNumbersKeepWhatCounts(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.0029: "0.0029", 0.5: "0.5", 0.904: "0.9", 1.55: "1.55", 12.04: "12", 47.53: "47.5", 740.4: "740", 15431: "15431", -3.2: "-3.2"} {
		if got := number(v); got != want {
			t.Errorf("%v is printed as %s, want %s", v, got, want)
		}
	}
}

// report of two repetitions in which the peer failed once.
func example() *Report {
	return &Report{Time: time.Unix(0, 0), Machine: map[string]string{"cpus": "2"},
		Systems: []SystemInfo{{Name: sysDirect}, {Name: sysTLS}, {Name: sysConnect}, {Name: sysAPI}, {Name: "frp"}, {Name: "chisel", Missing: "chisel is not on PATH"}},
		Samples: []Sample{
			{Rep: 1, Cell: "down1", System: sysDirect, Values: map[string]float64{"down1": 4000}},
			{Rep: 1, Cell: "down1", System: sysTLS, Values: map[string]float64{"down1": 700, "down1_cpu": 1.5}},
			{Rep: 2, Cell: "down1", System: sysTLS, Values: map[string]float64{"down1": 800, "down1_cpu": 1.7}},
			{Rep: 1, Cell: "down1", System: sysConnect, Values: map[string]float64{"down1": 690}, Notes: map[string]string{"down1_cpu": "no accounting"}},
			{Rep: 1, Cell: "down1", System: "frp", Values: map[string]float64{"down1": 400, "down1_cpu": 3}},
			{Rep: 2, Cell: "down1", System: "frp", Error: "it fell over"},
			{Rep: 1, Cell: "conn1", System: "frp", Error: "refused | twice"},
			{Rep: 1, Cell: "query", System: sysAPI, Values: map[string]float64{"query_added": 500}, Failed: 1, Failure: "one was late"},
			{Rep: 1, Cell: "file", System: sysAPI, Values: map[string]float64{"file_get": 600}},
			{Rep: 1, Cell: "rows", System: sysAPI, Values: map[string]float64{"rows_rate": 5}},
		}}
}

// TestTheTableSaysWhatItKnows: ratios, targets met and not met, and reasons in the place of figures that are not there.
func TestTheTableSaysWhatItKnows(t *testing.T) {
	var out bytes.Buffer
	if err := example().Print(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"| down1 | MB/s | direct | 4000 | [4000–4000] | 1 | | 5.33 | 10 | |",
		"| | MB/s | tls-pair | 750 | [700–800] | 2 | 0.19 | | 1.88 | |",
		"≥ 0.9 × tls-pair: met (0.92); ≥ 1.7 × frp: met (1.73)",
		"fairlead-connect | not measured: no accounting",
		"| conn1_rate | /s | frp | not measured: refused / twice",
		"≤ 450: NOT met", "≥ 0.5 × direct: not measured", "≥ 0.8 × raw down1: met (0.87)",
		"- chisel: not measured: chisel is not on PATH",
		"- query of fairlead, repetition 1: 1 failed and are in no figure; the first: one was late",
		"took ; ratios are of medians",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "up8") {
		t.Error("a figure that nobody gave is in the table")
	}
}

func TestEveryTargetIsOfAFigure(t *testing.T) {
	known := map[string]bool{}
	for _, f := range append(slices.Clone(figures), wanFigures...) {
		known[f.name] = true
	}
	for _, x := range targets() {
		if !known[x.figure] || x.other != "" && !known[x.other] {
			t.Errorf("there is no figure for %+v", x)
		}
	}
	made := map[string]bool{}
	for _, c := range append(cells(), wanCells()...) {
		for _, f := range c.figures {
			if !known[f] || made[f] {
				t.Errorf("cell %s gives %s, which is unknown or another's", c.name, f)
			}
			made[f] = true
		}
	}
	if len(made) != len(known) {
		t.Errorf("%d figures, and cells give %d", len(known), len(made))
	}
}

// TestTheDocumentNamesEveryFigure holds docs/performance.md against the table that the program prints.
func TestTheDocumentNamesEveryFigure(t *testing.T) {
	b, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		if !strings.Contains(string(b), "`"+f.name+"`") {
			t.Errorf("docs/performance.md does not tell of %s", f.name)
		}
	}
}

// TestCPUTimeIsThatOfAProcessAndItsChildren burns some in a child of a child.
func TestCPUTimeIsThatOfAProcessAndItsChildren(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED, NOT TESTED: CPU time is read from /proc")
	}
	cmd := exec.Command("/bin/sh", "-c", "sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo done; cat >/dev/null")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	u, err := account()
	if err != nil {
		t.Fatal(err)
	}
	if got := u.of(cmd.Process.Pid); got <= 0 || math.IsNaN(got) {
		t.Errorf("a child's work is not accounted: %v s", got)
	}
	if got := u.of(os.Getpid()); got < u.of(cmd.Process.Pid) {
		t.Errorf("the child is not among the descendants: %v", got)
	}
	kb, err := dirty(cmd.Process.Pid)
	if err != nil || kb <= 0 {
		t.Errorf("memory: %v KiB, %v", kb, err)
	}
	if all, err := dirty(os.Getpid()); err != nil || all <= kb {
		t.Errorf("memory with that of descendants: %v KiB of which %v are the child's, %v", all, kb, err)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
