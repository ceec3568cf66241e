package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/wan"
)

// TestMain lets the test's own program take the roles of the harness.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "role" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		if err := Role(ctx, os.Args[2:]); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(labEnv) != "" && !wan.Isolated() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		code, err := wan.Isolate(ctx, os.Args)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, "the laboratory:", err)
			code = 1
		}
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}

// programs is a folder with the built programs: FAIRLEAD_BIN, or built now.
func programs(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("FAIRLEAD_BIN"); dir != "" {
		return dir
	}
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+string(filepath.Separator), "./agent/cmd/fairlead-agent", "./relay/cmd/fairlead-relay", "./relay/cmd/fairlead")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return dir
}

// TestTheHarnessMeasuresEveryFigure runs everything once with tiny sizes: what it prints has a value for each figure that
// this machine can give, and says why for each that it cannot.
func TestTheHarnessMeasuresEveryFigure(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("SKIPPED, NOT TESTED: memory and CPU time are read from /proc")
	}
	o := Quick()
	o.Bin, o.Dir = programs(t), t.TempDir()
	o.Cell, o.Settle, o.Rows, o.FileSize, o.Streams, o.Agents = 50*time.Millisecond, 50*time.Millisecond, 500, 1<<20, 8, 3
	if err := os.Chmod(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o.Self = []string{self}
	var progress bytes.Buffer
	o.Progress = &progress
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := Run(ctx, o)
	if err != nil {
		t.Fatalf("%v\n%s", err, &progress)
	}
	t.Log(progress.String())
	for _, s := range r.Samples {
		database := slices.Contains([]string{"pg1", "pg8", "query", "rows"}, s.Cell)
		switch {
		case s.Error == "":
		case database && (strings.Contains(s.Error, "is not installed") || strings.Contains(s.Error, "is not on PATH")) && os.Getenv("CI") != "true":
			t.Logf("%s of %s: %s", s.Cell, s.System, s.Error)
		default:
			t.Errorf("%s of %s was not measured: %s", s.Cell, s.System, s.Error)
		}
		for f, v := range s.Values {
			// Memory may shrink and an added time may be below nothing on a busy machine; nothing else may.
			if v <= 0 && !strings.HasPrefix(f, "stream_") && f != "agent_relay" && f != "query_added" && !strings.HasSuffix(f, "_cpu") {
				t.Errorf("%s of %s is %v", f, s.System, v)
			}
		}
	}
	var table bytes.Buffer
	if err := r.Print(&table); err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		if !strings.Contains(table.String(), "| "+f.name+" ") {
			t.Errorf("%s is not in the table", f.name)
		}
	}
	for _, s := range []string{sysDirect, sysPlain, sysTLS, sysConnect, sysAPI} {
		if !strings.Contains(table.String(), "| "+s+" ") {
			t.Errorf("%s is not in the table", s)
		}
	}
	for _, name := range []string{sysGateway, sysQUIC} {
		if i := slices.IndexFunc(r.Systems, func(s SystemInfo) bool { return s.Name == name }); i < 0 || r.Systems[i].Missing == "" && !strings.Contains(table.String(), "| "+name+" ") {
			t.Errorf("%s is neither measured nor named as missing: %+v", name, r.Systems)
		}
	}
	file := filepath.Join(o.Dir, "results", "run.json")
	if err := r.Save(file); err != nil {
		t.Fatal(err)
	}
	var again Report
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &again)
	}
	if err != nil || len(again.Samples) != len(r.Samples) {
		t.Errorf("the raw values do not come back: %v, %d of %d", err, len(again.Samples), len(r.Samples))
	}
}

// TestABrokenOrMissingPeerIsNamed: no row is invented for a peer that is not there or does not start.
func TestABrokenOrMissingPeerIsNamed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("SKIPPED, NOT TESTED: the broken program is a shell script")
	}
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho 'no such option' >&2\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("FAIRLEAD_BENCH_CHISEL", broken)
	t.Setenv("FAIRLEAD_BENCH_FRPS", filepath.Join(dir, "nowhere"))
	b := &bench{dir: dir, certs: dir, target: "127.0.0.1:1", report: &Report{}, opt: Options{Reps: 1, Cell: time.Millisecond, Progress: io.Discard}}
	var names []string
	for _, s := range b.peers() {
		names = append(names, s.Name)
		switch s.Name {
		case "chisel":
			if s.Missing != "" {
				t.Errorf("chisel was named by the environment and is called missing: %s", s.Missing)
			}
			if _, err := s.start(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "no such option") {
				t.Errorf("a program that ends at once: %v", err)
			}
		case "frp":
			if !strings.Contains(s.Missing, "FAIRLEAD_BENCH_FRPS") {
				t.Errorf("frp: %q", s.Missing)
			}
		case "haproxy":
			if !strings.Contains(s.Missing, "not on PATH") && s.Missing != "" {
				t.Errorf("haproxy: %q", s.Missing)
			}
		}
		b.report.Systems = append(b.report.Systems, s.SystemInfo)
	}
	for _, want := range []string{"frp", "frp-nomux", "chisel", "ghostunnel", "haproxy", "stunnel", "ssh-R", "ssh-R-aesgcm"} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among the peers", want)
		}
	}
	var out bytes.Buffer
	if err := b.report.Print(&out); err != nil || !strings.Contains(out.String(), "- frp: not measured: FAIRLEAD_BENCH_FRPS") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// hop runs a role in this process and gives what ends it.
func hop(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// TestPairsCarryBytesUnchanged: what the bare pairs measure is worth something only if they carry what they are given, both
// ways, with half-close.
func TestPairsCarryBytesUnchanged(t *testing.T) {
	certs := t.TempDir()
	if err := makeCerts(certs); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"plain": "", "tls": certs} {
		t.Run(name, func(t *testing.T) {
			// The second target sends back, in capitals, all that came, once the client's side has ended.
			upper, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer upper.Close()
			go func() {
				for {
					c, err := upper.Accept()
					if err != nil {
						return
					}
					b, err := io.ReadAll(c)
					if err == nil {
						_, _ = c.Write(bytes.ToUpper(b))
					}
					c.Close()
				}
			}()
			var p ports
			var at [4]string
			for i := range at {
				n, err := p.take()
				if err != nil {
					t.Fatal(err)
				}
				at[i] = loopback(n)
			}
			hop(t, func(ctx context.Context) error { return runTarget(ctx, targetOptions{at[0]}) })
			hop(t, func(ctx context.Context) error { return runPairRelay(ctx, relayOptions{at[1], at[2:], dir}) })
			hop(t, func(ctx context.Context) error {
				return runPairAgent(ctx, agentOptions{at[1], []string{at[0], upper.Addr().String()}, dir, 2})
			})
			i := &instance{raw: at[2]}
			if err := i.ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent := bytes.Repeat([]byte("all that came "), 100_000)
			c, err := dial(t.Context(), at[3])
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() { _, _ = c.Write(sent); _ = c.(*net.TCPConn).CloseWrite() }()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, bytes.ToUpper(sent)) {
				t.Errorf("%d bytes came back of %d: %v", len(got), len(sent), err)
			}
			for _, up := range []bool{false, true} {
				load := bulkDown
				if up {
					load = bulkUp
				}
				if n, _, err := load(t.Context(), at[2], 3, 20*time.Millisecond); err != nil || n == 0 {
					t.Errorf("bulk, up is %v: %v bytes, %v", up, n, err)
				}
			}
			if err := once(t.Context(), at[2]); err != nil {
				t.Error(err)
			}
			if r, err := httpKeepAlive(t.Context(), at[2], 2, 20*time.Millisecond); err != nil || len(r.took) == 0 {
				t.Errorf("HTTP: %v", err)
			}
		})
	}
}

// TestTheTLSPairAdmitsOnlyItsOwn: a pair without authentication would be measured as cheaper than it may be.
func TestTheTLSPairAdmitsOnlyItsOwn(t *testing.T) {
	ours, others := t.TempDir(), t.TempDir()
	for _, d := range []string{ours, others} {
		if err := makeCerts(d); err != nil {
			t.Fatal(err)
		}
	}
	var p ports
	n, err := p.take()
	if err != nil {
		t.Fatal(err)
	}
	addr := loopback(n)
	hop(t, func(ctx context.Context) error { return runPairRelay(ctx, relayOptions{addr, nil, ours}) })
	if err := every(t.Context(), readyTime, func(ctx context.Context) error {
		c, err := dial(ctx, addr)
		if err == nil {
			c.Close()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	conf, err := pairTLS(others, "agent")
	if err != nil {
		t.Fatal(err)
	}
	if c, _, err := await(t.Context(), agentOptions{Relay: addr}, conf); err == nil {
		c.Close()
		t.Error("a stranger's certificate was taken")
	}
}

func TestOnlyPicksCellsFiguresAndSystems(t *testing.T) {
	picked := func(pattern string) (list []string) {
		re := regexp.MustCompile(pattern)
		for _, c := range cells() {
			for _, s := range []string{sysDirect, sysTLS} {
				if c.wanted(re.MatchString, s) {
					list = append(list, c.name+"/"+s)
				}
			}
		}
		return list
	}
	if got := picked("^down1/direct"); !slices.Equal(got, []string{"down1/direct"}) {
		t.Errorf("%v", got)
	}
	if got := picked("^conn32_p99/tls"); !slices.Equal(got, []string{"conn32/tls-pair"}) {
		t.Errorf("%v", got)
	}
	if got := picked("/direct$"); len(got) != len(cells()) {
		t.Errorf("%v", got)
	}
}
