package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Report tells what a verification saw. On a TamperError it covers what stood before the fault.
type Report struct {
	First       Head // the point before the first record: Genesis, or where released records ended
	Last        Head // the last good record
	Records     uint64
	Checkpoints int    // whose signature and hash were checked
	Proven      uint64 // up to here a checkpoint signed by a key given, or an expected head, vouches; what is behind hangs on the chain alone
	Anchored    bool   // First is Genesis, or vouched for by a checkpoint or an expected head
	SetAside    int    // files of unacknowledged bytes in the folder
}

// Verifier verifies logs offline. It only reads.
type Verifier struct {
	// Keys that checkpoints may be signed with, old ones too. None: signatures are not looked at, only hashes.
	Keys []ed25519.PublicKey
	// Expect are heads that are known from elsewhere: receipts, exports, an earlier verification. The log must hold each.
	Expect []Head
}

// Verify verifies the log in a folder. With a key, the log must hold checkpoints and each must be signed by it. expect are heads
// known from elsewhere. A log whose end was cut off together with its last checkpoints is found by an expected head alone. The
// error is a *TamperError when the log is not whole.
func Verify(dir string, key ed25519.PublicKey, expect ...Head) (Report, error) {
	v := Verifier{Expect: expect}
	if key != nil {
		v.Keys = []ed25519.PublicKey{key}
	}
	return v.Dir(dir)
}

// VerifyLines verifies exported lines. from is the point right before the first of them: the zero Head or Genesis for record 1;
// with a number and no hash the first line's prev is believed, unless a checkpoint or an expected head is at that point.
// Checkpoints outside the lines are ignored, except that a signed one behind the last line shows that the end is missing.
func VerifyLines(r io.Reader, from Head, key ed25519.PublicKey, checkpoints []Checkpoint, expect ...Head) (Report, error) {
	v := Verifier{Expect: expect}
	if key != nil {
		v.Keys = []ed25519.PublicKey{key}
	}
	return v.Lines(r, from, checkpoints)
}

// Lines is VerifyLines.
func (v *Verifier) Lines(r io.Reader, from Head, checkpoints []Checkpoint) (Report, error) {
	w, err := v.walk(from, checkpoints)
	if err != nil {
		return Report{}, err
	}
	if err := w.lines(r, ""); err != nil {
		return w.report, err
	}
	return w.report, w.end()
}

// Dir is Verify.
func (v *Verifier) Dir(dir string) (Report, error) {
	cps, err := v.readCheckpoints(dir)
	if err != nil {
		return Report{}, err
	}
	firsts, err := listSegments(dir)
	if err != nil {
		return Report{}, err
	}
	from := Genesis
	if len(firsts) > 0 && firsts[0] > 1 {
		from = Head{Seq: firsts[0] - 1}
	}
	w, err := v.walk(from, cps)
	if err != nil {
		return Report{}, err
	}
	if bad, err := filesWith(dir, ".bad"); err == nil {
		w.report.SetAside = len(bad)
	}
	for _, first := range firsts {
		name := filepath.Base(segmentPath(dir, first))
		if first != w.report.Last.Seq+1 {
			return w.report, &TamperError{Seq: w.report.Last.Seq + 1, File: name, Reason: "records are missing before this segment, or it repeats some"}
		}
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return w.report, fmt.Errorf("open segment: %w", err)
		}
		err = w.lines(f, name)
		_ = f.Close()
		var te *TamperError
		if errors.As(err, &te) {
			te.Torn = te.Torn && first == firsts[len(firsts)-1]
		}
		if err != nil {
			return w.report, err
		}
	}
	if len(v.Keys) > 0 && w.report.Records > 0 && len(cps) == 0 {
		return w.report, &TamperError{Seq: w.report.First.Seq + 1, File: checkpointFile, Reason: "there is no signed checkpoint"}
	}
	return w.report, w.end()
}

func (v *Verifier) readCheckpoints(dir string) ([]Checkpoint, error) {
	data, err := os.ReadFile(filepath.Join(dir, checkpointFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	cps, rest := splitCheckpoints(data)
	if len(rest) > 0 {
		seq := uint64(1)
		if n := len(cps); n > 0 {
			seq = cps[n-1].Seq
		}
		return nil, &TamperError{
			Seq: seq, File: checkpointFile, Line: len(cps) + 1, Reason: "the checkpoint is malformed",
			Torn: !bytes.Contains(rest, []byte("\n")),
		}
	}
	for i := 1; i < len(cps); i++ {
		if cps[i].Seq <= cps[i-1].Seq {
			return nil, &TamperError{Seq: cps[i].Seq, File: checkpointFile, Line: i + 1, Reason: "checkpoints are out of order"}
		}
	}
	return cps, nil
}

// known is a point that the log must pass through.
type known struct {
	Head
	what   string
	proves bool
}

// walker follows one log.
type walker struct {
	report Report
	points []known // rising, not yet passed
}

func (v *Verifier) walk(from Head, cps []Checkpoint) (*walker, error) {
	w := &walker{}
	for _, c := range cps {
		if len(v.Keys) > 0 {
			if err := c.Verify(v.Keys...); err != nil {
				return nil, &TamperError{Seq: max(1, c.Seq), File: checkpointFile, Reason: err.Error()}
			}
		}
		w.points = append(w.points, known{c.Head(), "a checkpoint", len(v.Keys) > 0})
	}
	for _, h := range v.Expect {
		if h.Seq > 0 || h.Hash != "" {
			w.points = append(w.points, known{h, "a head that is known from elsewhere", true})
		}
	}
	slices.SortStableFunc(w.points, func(a, b known) int {
		if a.Seq < b.Seq {
			return -1
		} else if a.Seq > b.Seq {
			return 1
		}
		return 0
	})
	for len(w.points) > 0 && w.points[0].Seq < from.Seq {
		w.points = w.points[1:] // of records that were released, or are not part of the export
	}
	if from.Seq == 0 {
		if from.Hash != "" && from.Hash != GenesisHash {
			return nil, &TamperError{Seq: 1, Reason: "the start is not the start of a log"}
		}
		from = Genesis
		w.report.Anchored = true
	}
	w.report.First, w.report.Last = from, from
	if len(w.points) > 0 && w.points[0].Seq == from.Seq && from.Hash == "" {
		w.report.First.Hash, w.report.Last.Hash = w.points[0].Hash, w.points[0].Hash
	}
	return w, w.pass()
}

// pass checks the points that the last record stands at.
func (w *walker) pass() error {
	last := w.report.Last
	for ; len(w.points) > 0 && w.points[0].Seq == last.Seq; w.points = w.points[1:] {
		p := w.points[0]
		if p.Hash != last.Hash {
			return &TamperError{Seq: max(1, last.Seq), Reason: "its hash is not the one that " + p.what + " has: it or a record before it was changed"}
		}
		if p.what == "a checkpoint" {
			w.report.Checkpoints++
		}
		if p.proves {
			w.report.Proven = last.Seq
			w.report.Anchored = w.report.Anchored || w.report.Records == 0
		}
	}
	return nil
}

func (w *walker) lines(src io.Reader, file string) error {
	r := bufio.NewReaderSize(src, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(r)
		if err == io.EOF {
			return nil
		}
		next := w.report.Last.Seq + 1
		if err == errLine && onlyZeros(r) { // room that was reserved and not used, maybe behind a line that is being written
			if line = bytes.TrimRight(line, "\x00"); len(line) == 0 {
				return nil
			}
		}
		if err == errLine {
			return &TamperError{
				Seq: next, File: file, Line: n, Reason: "the line is not complete or too long", Torn: len(line) <= MaxLineBytes,
			}
		}
		if err != nil {
			return err
		}
		rec, fault := follow(w.report.Last, line)
		if fault != nil {
			fault.at(file, n)
			if w.report.Records > 0 {
				after, _ := readLine(r)
				fault.blame(rec, after)
			}
			if fault.Seq == next && rec.Seq == next && len(w.points) > 0 && w.points[0].Head == rec.Head() && w.report.Records > 0 && fault.chain {
				fault.Seq, fault.Reason = next-1, "its hash is not the one that the next record has, for which "+w.points[0].what+" vouches"
			}
			return fault
		}
		if w.report.First.Hash == "" {
			w.report.First.Hash = rec.Prev
		}
		w.report.Last = rec.Head()
		w.report.Records++
		if err := w.pass(); err != nil {
			return err
		}
	}
}

// onlyZeros reports whether nothing but zero bytes is left.
func onlyZeros(r *bufio.Reader) bool {
	for {
		p, err := r.Peek(1)
		if len(p) == 0 {
			return err == io.EOF
		}
		p, _ = r.Peek(r.Buffered())
		if len(bytes.TrimLeft(p, "\x00")) > 0 {
			return false
		}
		_, _ = r.Discard(len(p))
	}
}

// end checks that nothing was promised behind the last record.
func (w *walker) end() error {
	if len(w.points) == 0 {
		return nil
	}
	return &TamperError{
		Seq:    w.report.Last.Seq + 1,
		Reason: fmt.Sprintf("the log ends before this record, and %s is at record %d", w.points[len(w.points)-1].what, w.points[len(w.points)-1].Seq),
	}
}

// Follow checks that lines continue a chain right behind from, as a relay does with an agent's batch before it keeps it. The zero
// Head is Genesis; any other must have its hash. It gives the records up to the first that does not fit, for which the error
// is a *TamperError. The records alias lines.
func Follow(from Head, lines []json.RawMessage) ([]Record, error) {
	if from == (Head{}) {
		from = Genesis
	}
	if from.Hash == "" {
		return nil, &TamperError{Seq: from.Seq + 1, Reason: "the hash of the record before is not known"}
	}
	out := make([]Record, 0, len(lines))
	for i, line := range lines {
		r, fault := follow(from, line)
		if fault != nil {
			return out, fault.at("", i+1)
		}
		out = append(out, r)
		from = r.Head()
	}
	return out, nil
}
