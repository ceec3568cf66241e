//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
)

// big is true for the full sizes: 2 GB and 5 million rows, with FAIRLEAD_BIG=1.
var big = os.Getenv("FAIRLEAD_BIG") == "1"

const (
	maxPeak   = 200 << 20 // of a relay and of an agent, while anything flows
	maxGrowth = 32 << 20  // of that, when ten times as much flows
)

// randomFile writes a file of n bytes that does not compress, and gives its hash.
func randomFile(t *testing.T, path string, n int64) [sha256.Size]byte {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8([32]byte{byte(n)}), n); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func hashFile(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// timed runs fairlead to its end, reading its standard output by lines as they come, and gives its time, its lines and the
// most memory that it had.
func (i *installation) timed(args ...string) (took time.Duration, lines int64, mem int64) {
	i.t.Helper()
	cmd := exec.Command(program(i.t, "fairlead"), args...)
	cmd.Env = append(cleanEnv(), i.env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		i.t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	sampled := make(chan int64)
	stop := make(chan struct{})
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for top := int64(0); ; {
			top = max(top, peak(i.t, cmd.Process.Pid))
			select {
			case <-tick.C:
			case <-stop:
				sampled <- top
				return
			}
		}
	}()
	r := bufio.NewReaderSize(out, 1<<20)
	for {
		_, err := r.ReadSlice('\n')
		if err != nil {
			break
		}
		lines++
	}
	err = cmd.Wait()
	took = time.Since(begin)
	close(stop)
	mem = <-sampled
	if err != nil {
		i.t.Fatalf("fairlead %s: %v\n%s", strings.Join(args, " "), err, errs.String())
	}
	return took, lines, mem
}

// peaks gives the most memory of relay and agent so far.
func (i *installation) peaks() (relay, agent int64) {
	return peak(i.t, i.relay.Process.Pid), peak(i.t, i.agent.Process.Pid)
}

// flat checks that memory stayed below its limit and did not grow with the size of what flowed.
func (i *installation) flat(what string, smallRelay, smallAgent int64) {
	i.t.Helper()
	relay, agent := i.peaks()
	if relay > maxPeak || agent > maxPeak || relay == 0 || agent == 0 {
		i.t.Errorf("%s: peak of relay %d MiB, of agent %d MiB; the limit is %d", what, relay>>20, agent>>20, maxPeak>>20)
	}
	if relay-smallRelay > maxGrowth || agent-smallAgent > maxGrowth {
		i.t.Errorf("%s: grew with the size: relay %d to %d MiB, agent %d to %d MiB", what, smallRelay>>20, relay>>20, smallAgent>>20, agent>>20)
	}
}

const flowYAML = "files:\n  papers: {base: DIR/papers, allow: [list, read, write]}\n"

func flowSite(t *testing.T, yaml string, engines ...*engine) *installation {
	t.Helper()
	i := install(t, yaml)
	if err := os.Mkdir(i.path("papers"), 0o755); err != nil {
		t.Fatal(err)
	}
	copyCAs(t, i.dir, engines...)
	for user, pw := range map[string]string{"reader": "r-secret", "writer": "w-secret", "boss": "b-secret"} {
		i.write(user+".pw", pw+"\n", 0o600)
	}
	i.startAgent()
	i.connections("papers")
	return i
}

// TestLargeFileFlatMemory: P12. A file of any size passes both ways with memory that does not depend on its size.
func TestLargeFileFlatMemory(t *testing.T) {
	i := flowSite(t, flowYAML)
	sizes := []int64{32 << 20, 256 << 20}
	if big {
		sizes = []int64{200_000_000, 2_000_000_000}
	}
	var smallRelay, smallAgent int64
	for _, n := range sizes {
		src, back := i.path("src.bin"), i.path("back.bin")
		sum := randomFile(t, src, n)
		up, _, upMem := i.timed("files", "put", src, "papers:big.bin")
		if hashFile(t, i.path("papers/big.bin")) != sum {
			t.Fatal("what arrived is not what was sent")
		}
		down, _, downMem := i.timed("files", "get", "papers:big.bin", back, "--force")
		if hashFile(t, back) != sum {
			t.Fatal("what came back is not what was sent")
		}
		relay, agent := i.peaks()
		mb := float64(n) / 1e6
		t.Logf("%.0f MB: up %.1f s (%.0f MB/s), down %.1f s (%.0f MB/s); peak relay %d, agent %d, client %d (put) and %d (get) MiB",
			mb, up.Seconds(), mb/up.Seconds(), down.Seconds(), mb/down.Seconds(), relay>>20, agent>>20, upMem>>20, downMem>>20)
		if upMem > maxPeak || downMem > maxPeak {
			t.Errorf("the client took %d and %d MiB", upMem>>20, downMem>>20)
		}
		if smallRelay == 0 {
			smallRelay, smallAgent = relay, agent
		}
	}
	i.flat("files", smallRelay, smallAgent)
}

// TestLargeAnswerFlatMemory: P12 for rows.
func TestLargeAnswerFlatMemory(t *testing.T) {
	s, _ := postgresql.open(t)
	i := flowSite(t, flowYAML+"database:\n"+postgresql.yaml(s), postgresql)
	i.connections("pg_long")
	sizes := []int64{50_000, 500_000}
	if big {
		sizes = []int64{500_000, 5_000_000}
	}
	var smallRelay, smallAgent int64
	for _, n := range sizes {
		took, lines, mem := i.timed("query", "pg_long", fmt.Sprintf("select g, md5(g::text) as h, g * 1.5 as d, now() as t from generate_series(1, %d) g", n), "--output", "csv")
		if lines != n+1 {
			t.Fatalf("%d lines for %d rows", lines, n)
		}
		relay, agent := i.peaks()
		t.Logf("%d rows: %.1f s (%.0f rows/s); peak relay %d, agent %d, client %d MiB", n, took.Seconds(), float64(n)/took.Seconds(), relay>>20, agent>>20, mem>>20)
		if mem > maxPeak {
			t.Errorf("the client took %d MiB", mem>>20)
		}
		if smallRelay == 0 {
			smallRelay, smallAgent = relay, agent
		}
	}
	i.flat("rows", smallRelay, smallAgent)
}

// http is a plain client, which takes nothing up again by itself.
func (i *installation) http() *http.Client {
	i.t.Helper()
	pem, err := os.ReadFile(i.path("relay/ca.pem"))
	if err != nil {
		i.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	i.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 2 * time.Minute}
}

// TestKilledAgentCutsTransfers: P13. An agent that dies amid a transfer is seen as a cut, never as an end, and leaves no
// part of a file under the file's name.
func TestKilledAgentCutsTransfers(t *testing.T) {
	i := flowSite(t, flowYAML)
	randomFile(t, i.path("papers/big.bin"), 128<<20)
	t.Run("download", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodGet, "https://"+i.address+"/api/v1/workspaces/default/connections/papers/files/big.bin", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+i.adminToken)
		resp, err := i.http().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.CopyN(io.Discard, resp.Body, 1<<20); err != nil {
			t.Fatal(err)
		}
		i.agent.kill()
		n, err := io.Copy(io.Discard, resp.Body)
		if err == nil || n >= 127<<20 {
			t.Fatalf("a cut download ended as if it were whole, after %d bytes: %v", n, err)
		}
	})
	i.startAgent()
	t.Run("upload", func(t *testing.T) {
		pr, pw := io.Pipe()
		res := make(chan error, 1)
		go func() {
			_, err := i.client.Put(ctx, "papers", "new.bin", pr, -1, client.PutOptions{})
			res <- err
			pr.CloseWithError(errors.New("ended"))
		}()
		chunk := make([]byte, 1<<20)
		for n := 0; n < 16; n++ {
			if _, err := pw.Write(chunk); err != nil {
				t.Fatal(err, <-res)
			}
		}
		i.agent.kill()
		for n := 0; n < 256; n++ { // goes on until the cut is seen
			if _, err := pw.Write(chunk); err != nil {
				break
			}
		}
		pw.Close()
		if err := <-res; err == nil {
			t.Fatal("an upload to a killed agent went well")
		}
		if _, err := os.Stat(i.path("papers/new.bin")); err == nil {
			t.Fatal("part of a file stands under its name")
		}
		i.startAgent()
		if out := i.ok("files", "ls", "papers:", "--recursive"); strings.Contains(out, "new") {
			t.Fatalf("part of a file is listed: %s", out)
		}
	})
}

// TestTransfersResume: the same command again goes on where a killed one was; and a command whose agent is killed goes on
// by itself when the agent is back.
func TestTransfersResume(t *testing.T) {
	i := flowSite(t, flowYAML)
	n := int64(192 << 20)
	src := i.path("src.bin")
	sum := randomFile(t, src, n)
	folderBytes := func(dir, leave string) (sum int64) {
		_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && d.Name() != leave {
				if info, err := d.Info(); err == nil {
					sum += info.Size()
				}
			}
			return nil
		})
		return sum
	}
	if err := os.Mkdir(i.path("local"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, to string
		dir      string // where the bytes arrive
		args     []string
	}{
		{"put", i.path("papers/src.bin"), i.path("papers"), []string{"files", "put", src, "papers:src.bin"}},
		{"get", i.path("local/back.bin"), i.path("local"), []string{"files", "get", "papers:src.bin", i.path("local/back.bin"), "--force"}},
	} {
		t.Run(c.name+", the command killed", func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "first.log")
			p := start(t, i.env, log, program(t, "fairlead"), c.args...)
			testenv.Eventually(t, "a part", func() bool { return folderBytes(c.dir, "") > n/8 })
			p.kill()
			if _, err := os.Stat(c.to); err == nil {
				t.Fatal("it was too fast: all of it is there, so nothing is tested")
			}
			o := i.run(c.args...)
			if o.Exit != 0 || !strings.Contains(o.Err, "resuming at") || hashFile(t, c.to) != sum {
				t.Fatalf("the same command again: %s", o)
			}
		})
		t.Run(c.name+", the agent killed", func(t *testing.T) {
			if err := os.Remove(c.to); err != nil {
				t.Fatal(err)
			}
			before := folderBytes(c.dir, "")
			if c.name == "get" {
				defer func() { _ = os.Remove(c.to) }()
			}
			log := filepath.Join(t.TempDir(), "command.log")
			p := start(t, i.env, log, program(t, "fairlead"), c.args...)
			testenv.Eventually(t, "a part", func() bool { return folderBytes(c.dir, "") > before+n/8 })
			i.agent.kill()
			i.startAgent()
			if status := p.ended(t, time.Minute); status != 0 || hashFile(t, c.to) != sum {
				b, _ := os.ReadFile(log)
				t.Fatalf("status %d: %s", status, b)
			}
		})
	}
	var left []string
	_ = filepath.WalkDir(i.path("papers"), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			left = append(left, d.Name())
		}
		return nil
	})
	if strings.Join(left, " ") != "src.bin" {
		t.Errorf("left in the folder: %v", left)
	}
}
