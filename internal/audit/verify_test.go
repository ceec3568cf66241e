package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pristine is a closed log of several segments, in memory.
func pristine(t testing.TB, n int) (Config, map[string][]byte, Head) {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Source: "agt_x", Key: testKey, SegmentBytes: 2000, CheckpointEvery: 25}
	fill(t, cfg, n)
	files := map[string][]byte{}
	for _, name := range append(segmentFiles(t, cfg.Dir), checkpointFile) {
		data, err := os.ReadFile(filepath.Join(cfg.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = data
	}
	return cfg, files, mustVerify(t, cfg.Dir).Last
}

// edit makes one random change to one line of one file, or to the files as such, and says what. first and last are the records
// between which the verifier may place the fault.
func edit(rng *rand.Rand, dir string, files map[string][]byte, names []string) (what, file string, changed []byte) {
	file = names[rng.IntN(len(names))]
	data := bytes.Clone(files[file])
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines = lines[:len(lines)-1]
	i, j := rng.IntN(len(lines)), rng.IntN(len(lines))
	at := rng.IntN(len(data))
	switch rng.IntN(9) {
	case 0:
		what = "flip a bit"
		data[at] ^= 1 << rng.IntN(8)
	case 1:
		what = "put another byte"
		data[at] = byte(rng.IntN(256))
	case 2:
		what = "delete a byte"
		data = append(data[:at], data[at+1:]...)
	case 3:
		what = "insert a byte"
		data = append(data[:at:at], append([]byte{byte(rng.IntN(256))}, data[at:]...)...)
	case 4:
		what = "delete a line"
		lines[i] = nil
		data = bytes.Join(lines, nil)
	case 5:
		what = "double a line"
		lines[i] = append(bytes.Clone(lines[i]), lines[i]...)
		data = bytes.Join(lines, nil)
	case 6:
		what = "swap two lines"
		lines[i], lines[j] = lines[j], lines[i]
		data = bytes.Join(lines, nil)
	case 7:
		what = "cut the file"
		data = data[:at]
	case 8:
		what = "move a line"
		l := lines[i]
		rest := append(append([][]byte{}, lines[:i]...), lines[i+1:]...)
		k := rng.IntN(len(rest) + 1)
		data = bytes.Join(append(append(append([][]byte{}, rest[:k]...), l), rest[k:]...), nil)
	}
	return what, file, data
}

// TestTampering makes 10,000 single edits, one at a time, most of them in an export and each tenth in the folder: all are
// found, and the record named is the one that was edited or its neighbour.
func TestTampering(t *testing.T) {
	cfg, files, head := pristine(t, 60)
	names := segmentFiles(t, cfg.Dir)
	if len(names) < 4 {
		t.Fatal(names)
	}
	edits := 10000
	if testing.Short() {
		edits = 1000
	}
	cps, _ := splitCheckpoints(files[checkpointFile])
	rng := rand.New(rand.NewPCG(1, 2))
	done, exact := 0, 0
	for done < edits {
		what, file, data := edit(rng, cfg.Dir, files, names)
		if bytes.Equal(data, files[file]) {
			continue
		}
		done++
		want := firstChanged(files, names, file, data)
		var rep Report
		var err error
		if done%10 == 0 {
			must(t, os.WriteFile(filepath.Join(cfg.Dir, file), data, 0o600))
			rep, err = Verify(cfg.Dir, testPub())
			must(t, os.WriteFile(filepath.Join(cfg.Dir, file), files[file], 0o600))
		} else {
			var all []byte
			for _, n := range names {
				if n == file {
					all = append(all, data...)
				} else {
					all = append(all, files[n]...)
				}
			}
			rep, err = VerifyLines(bytes.NewReader(all), Head{}, testPub(), cps)
		}
		var te *TamperError
		if !errors.As(err, &te) {
			t.Fatalf("edit %d, %s in %s: not found: %+v %v", done, what, file, rep, err)
		}
		if te.Seq != want && te.Seq != want+1 {
			t.Fatalf("edit %d, %s in %s: record %d was changed first, and %v", done, what, file, want, err)
		}
		if te.Seq == want {
			exact++
		}
		if rep.Last.Seq > want {
			t.Fatalf("edit %d, %s: record %d was changed and %d is called good", done, what, want, rep.Last.Seq)
		}
	}
	t.Logf("%d edits, all found, %d named exactly", done, exact)
	if exact < done*95/100 {
		t.Errorf("only %d of %d are named exactly", exact, done)
	}
	mustVerify(t, cfg.Dir, head)
}

// firstChanged is the number of the first record whose line is not what it was.
func firstChanged(files map[string][]byte, names []string, file string, data []byte) uint64 {
	seq := uint64(1)
	for _, n := range names {
		old := bytes.SplitAfter(files[n], []byte("\n"))
		if n != file {
			seq += uint64(len(old) - 1)
			continue
		}
		now := bytes.SplitAfter(data, []byte("\n"))
		for i := range old[:len(old)-1] {
			if i >= len(now) || !bytes.Equal(old[i], now[i]) {
				return seq + uint64(i)
			}
		}
		return seq + uint64(len(old)-1)
	}
	return seq
}

// TestCheckpointTampering edits the checkpoints: every change but the removal of whole lines is found, and that leaves the
// records as they are.
func TestCheckpointTampering(t *testing.T) {
	cfg, files, head := pristine(t, 60)
	rng := rand.New(rand.NewPCG(3, 4))
	path := filepath.Join(cfg.Dir, checkpointFile)
	var whole [][]byte
	for l := range bytes.Lines(files[checkpointFile]) {
		whole = append(whole, l)
	}
	for i := range 2000 {
		what, file, data := edit(rng, cfg.Dir, files, []string{checkpointFile})
		if bytes.Equal(data, files[file]) {
			continue
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Verify(cfg.Dir, testPub())
		if err == nil && !subsequence(data, whole) {
			t.Fatalf("edit %d, %s: not found\n%s", i, what, data)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(cfg.Dir, testPub(), head); err == nil {
		t.Error("a log without checkpoints passes for signed")
	}
	if _, err := Verify(cfg.Dir, nil, head); err != nil {
		t.Errorf("without a key the chain alone counts: %v", err)
	}
}

func subsequence(data []byte, whole [][]byte) bool {
	for l := range bytes.Lines(data) {
		for len(whole) > 0 && !bytes.Equal(whole[0], l) {
			whole = whole[1:]
		}
		if len(whole) == 0 {
			return false
		}
		whole = whole[1:]
	}
	return len(data) > 0
}

func TestVerifyFindsWhole(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(t *testing.T, dir string, names []string)
		seq  uint64 // 0: any
	}{
		{"Z17 missing middle file", func(t *testing.T, dir string, n []string) { must(t, os.Remove(filepath.Join(dir, n[2]))) }, 0},
		{"Z17 missing last file", func(t *testing.T, dir string, n []string) { must(t, os.Remove(filepath.Join(dir, n[len(n)-1]))) }, 0},
		{"Z17 missing first file", func(t *testing.T, dir string, n []string) { must(t, os.Remove(filepath.Join(dir, n[0]))) }, 0},
		{"Z17 duplicated file", func(t *testing.T, dir string, n []string) { copyFile(t, filepath.Join(dir, n[1]), segmentPath(dir, 3)) }, 0},
		{"Z17 swapped files", func(t *testing.T, dir string, n []string) {
			a, b := filepath.Join(dir, n[1]), filepath.Join(dir, n[2])
			must(t, os.Rename(a, a+"x"))
			must(t, os.Rename(b, a))
			must(t, os.Rename(a+"x", b))
		}, 0},
		{"K4 file of another log", func(t *testing.T, dir string, n []string) {
			other := t.TempDir()
			fill(t, Config{Dir: other, Key: testKey, Source: "agt_x"}, 60)
			copyFile(t, filepath.Join(other, checkpointFile), filepath.Join(dir, checkpointFile))
		}, 0},
		{"K4 rewritten without the key", func(t *testing.T, dir string, n []string) {
			must(t, os.RemoveAll(dir))
			_, other, err := ed25519.GenerateKey(nil)
			must(t, err)
			fill(t, Config{Dir: dir, Key: other, Source: "agt_x", SegmentBytes: 1200}, 60)
		}, 1},
		{"zeroed block", func(t *testing.T, dir string, n []string) {
			data, err := os.ReadFile(filepath.Join(dir, n[1]))
			must(t, err)
			clear(data[100:600])
			must(t, os.WriteFile(filepath.Join(dir, n[1]), data, 0o600))
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, _, head := pristine(t, 60)
			names := segmentFiles(t, cfg.Dir)
			c.do(t, cfg.Dir, names)
			var te *TamperError
			rep, err := Verify(cfg.Dir, testPub(), head)
			if c.name == "Z17 missing first file" {
				// It looks like released records; that they are gone stands in the report, and an auditor knows what was released.
				if err != nil || rep.First.Seq == 0 {
					t.Fatalf("%+v %v", rep, err)
				}
				return
			}
			if !errors.As(err, &te) || c.seq > 0 && te.Seq != c.seq {
				t.Fatalf("%+v %v", rep, err)
			}
		})
	}
}

// TestTailCut: without its last checkpoints a log whose end was cut is a shorter log; a head held elsewhere shows it.
func TestTailCut(t *testing.T) {
	cfg, _, head := pristine(t, 60)
	names := segmentFiles(t, cfg.Dir)
	must(t, os.Remove(filepath.Join(cfg.Dir, names[len(names)-1])))
	cps, err := os.ReadFile(filepath.Join(cfg.Dir, checkpointFile))
	must(t, err)
	lines := bytes.SplitAfter(cps, []byte("\n"))
	must(t, os.WriteFile(filepath.Join(cfg.Dir, checkpointFile), bytes.Join(lines[:2], nil), 0o600))
	if _, err := Verify(cfg.Dir, testPub()); err != nil {
		t.Fatalf("a shorter log is a log: %v", err)
	}
	_, err = Verify(cfg.Dir, testPub(), head)
	var te *TamperError
	if !errors.As(err, &te) || te.Seq > head.Seq || !strings.Contains(te.Reason, "known from elsewhere") {
		t.Fatal(err)
	}
	// A fork: as many records, other ones.
	fork := t.TempDir()
	fill(t, Config{Dir: fork, Key: testKey, Source: "agt_x"}, 60)
	if _, err = Verify(fork, testPub(), head); !errors.As(err, &te) || te.Seq != 60 {
		t.Fatal(err)
	}
}

func TestVerifyLines(t *testing.T) {
	cfg, files, head := pristine(t, 60)
	var all []byte
	for _, n := range segmentFiles(t, cfg.Dir) {
		all = append(all, files[n]...)
	}
	cps, rest := splitCheckpoints(files[checkpointFile])
	if len(rest) > 0 || len(cps) < 4 {
		t.Fatal(len(cps))
	}
	rep, err := VerifyLines(bytes.NewReader(all), Head{}, testPub(), cps, head)
	if err != nil || rep.Records != 60 || rep.Proven != 60 || !rep.Anchored || rep.Checkpoints != len(cps) {
		t.Fatalf("%+v %v", rep, err)
	}
	// A part, from a head and from a number alone.
	lines := bytes.SplitAfter(all, []byte("\n"))
	first, err := ParseLine(bytes.TrimSuffix(lines[19], []byte("\n")))
	must(t, err)
	part := bytes.Join(lines[20:], nil)
	for _, from := range []Head{first.Head(), {Seq: 20}} {
		if rep, err := VerifyLines(bytes.NewReader(part), from, testPub(), cps); err != nil || rep.Records != 40 || rep.First != first.Head() {
			t.Fatalf("%+v %v", rep, err)
		}
	}
	var te *TamperError
	if _, err := VerifyLines(bytes.NewReader(part), Head{Seq: 20, Hash: head.Hash}, testPub(), nil); !errors.As(err, &te) || te.Seq != 21 {
		t.Fatal(err)
	}
	if _, err := VerifyLines(bytes.NewReader(part), Head{}, testPub(), cps); !errors.As(err, &te) || te.Seq != 1 {
		t.Fatal(err)
	}
	if _, err := VerifyLines(bytes.NewReader(bytes.Join(lines[:50], nil)), Head{}, testPub(), cps); !errors.As(err, &te) || te.Seq != 51 {
		t.Fatal(err)
	}
	if _, err := VerifyLines(bytes.NewReader(nil), Head{}, testPub(), cps); !errors.As(err, &te) || te.Seq != 1 {
		t.Fatal(err)
	}
	forged := append([]Checkpoint(nil), cps...)
	forged[3].Time = time.Now().Format(time.RFC3339)
	if _, err := VerifyLines(bytes.NewReader(all), Head{}, testPub(), forged); !errors.As(err, &te) {
		t.Fatal(err)
	}
}

// TestFollow: what the relay does with a batch of an agent's lines.
func TestFollow(t *testing.T) {
	cfg, _, head := pristine(t, 20)
	l := openTest(t, cfg)
	rs, err := l.Read(0, 100)
	must(t, err)
	var lines []json.RawMessage
	for _, r := range rs {
		lines = append(lines, r.Line)
	}
	for _, from := range []Head{{}, Genesis} {
		if got, err := Follow(from, lines); err != nil || len(got) != 20 || got[19].Head() != head {
			t.Fatalf("%d %v", len(got), err)
		}
	}
	if got, err := Follow(rs[4].Head(), lines[5:]); err != nil || len(got) != 15 {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		from  Head
		lines []json.RawMessage
		good  int
		seq   uint64
	}{
		"K3 other chain":  {Head{Seq: 5, Hash: head.Hash}, lines[5:], 0, 6},
		"K3 skips":        {rs[4].Head(), lines[6:], 0, 6},
		"K3 repeats":      {rs[4].Head(), lines[4:], 0, 6},
		"K3 gap":          {Genesis, append(append([]json.RawMessage{}, lines[:3]...), lines[4:]...), 3, 4},
		"K3 not a record": {Genesis, append(append([]json.RawMessage{}, lines[:3]...), json.RawMessage(`{}`)), 3, 4},
		"no hash":         {Head{Seq: 5}, lines[5:], 0, 6},
	} {
		got, err := Follow(c.from, c.lines)
		var te *TamperError
		if !errors.As(err, &te) || te.Seq != c.seq || len(got) != c.good {
			t.Errorf("%s: %d records, %v", name, len(got), err)
		}
	}
}

// TestKeyRotation: K15, checkpoints of an old key still count when the verifier knows both.
func TestKeyRotation(t *testing.T) {
	cfg, _, _ := pristine(t, 20)
	pub, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	cfg.Key = key
	fill(t, cfg, 20)
	v := Verifier{Keys: []ed25519.PublicKey{testPub(), pub}}
	if rep, err := v.Dir(cfg.Dir); err != nil || rep.Records != 40 || rep.Proven != 40 {
		t.Fatalf("%+v %v", rep, err)
	}
	if _, err := Verify(cfg.Dir, pub); err == nil {
		t.Fatal("a checkpoint of an unknown key was believed")
	}
}

// TestHashIsOfTheLine: sha256sum of a line without newline is what the next line has as prev (the format is public).
func TestHashIsOfTheLine(t *testing.T) {
	line := []byte(`{"seq":1,"prev":"` + GenesisHash + `","time":"2026-01-02T03:04:05Z","body":{"n":1}}`)
	r, err := ParseLine(line)
	must(t, err)
	if r.Hash != "W2GT250Q_pQvuepb2iYrGjEUhgWywc8b7yMGIPCO3Jg" {
		t.Fatal(r.Hash)
	}
	var free struct {
		Seq  uint64
		Prev string
		Time time.Time
		Body struct{ N int }
	}
	must(t, json.Unmarshal(line, &free))
	if free.Seq != 1 || free.Body.N != 1 || !free.Time.Equal(r.Time) {
		t.Fatalf("%+v", free)
	}
}

// TestALineHasOneSpelling: what encoding/json would write in another way is no line of a log, for its hash would be lost
// with whoever keeps it within JSON.
func TestALineHasOneSpelling(t *testing.T) {
	for _, body := range []string{`{"n": 1}`, ` {}`, `{} `, "{\t}", `"<"`, `"&"`, `{">":1}`, "\"\u2028\"", "\"\xff\"", `{}{}`, ``} {
		if _, err := ParseLine(fmt.Appendf(nil, `{"seq":1,"prev":"%s","time":"2026-01-02T03:04:05Z","body":%s}`, GenesisHash, body)); err == nil {
			t.Errorf("taken: %q", body)
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"prev":"` + GenesisHash + `","time":"2026-01-02T03:04:05Z","body":{"n":1}}`))
	f.Add([]byte(`{"seq":2,"prev":"` + GenesisHash + `","time":"2026-01-02T03:04:05.000000001Z","durable":1,"body":[]}`))
	f.Add([]byte(`{"seq":01}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseLine(line)
		if err != nil {
			return
		}
		again := appendLine(nil, r.Seq, r.Prev, r.Time, r.Durable, r.Body)
		if !bytes.Equal(again, line) {
			t.Fatalf("%s has the spelling %s", line, again)
		}
		if !json.Valid(line) {
			t.Fatalf("%q is no JSON", line)
		}
		if kept, err := json.Marshal(json.RawMessage(line)); err != nil || !bytes.Equal(kept, line) {
			t.Fatalf("%q becomes %q within JSON, %v", line, kept, err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	_, files, head := pristine(f, 12)
	var all []byte
	for i := 1; i <= 12; i++ {
		all = append(all, files[fmt.Sprintf("%020d.log", i)]...)
	}
	cps, _ := splitCheckpoints(files[checkpointFile])
	f.Add(all, files[checkpointFile])
	f.Add(all[:len(all)/2], []byte("{}"))
	f.Add([]byte("\n\n"), []byte{})
	f.Fuzz(func(t *testing.T, log, signed []byte) {
		rep, err := VerifyLines(bytes.NewReader(log), Head{}, testPub(), cps, head)
		if err == nil && !bytes.Equal(log, all) {
			t.Fatalf("another log verifies: %+v", rep)
		}
		got, rest := splitCheckpoints(signed)
		if _, err := VerifyLines(bytes.NewReader(all), Head{}, testPub(), got); err == nil && len(rest) == 0 && !known12(signed, files[checkpointFile]) {
			t.Fatalf("other checkpoints verify: %s", signed)
		}
	})
}

func known12(data, all []byte) bool {
	for l := range bytes.Lines(data) {
		if !bytes.Contains(all, l) {
			return false
		}
	}
	return true
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, data, 0o600))
}
