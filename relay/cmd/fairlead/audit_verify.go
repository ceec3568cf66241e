package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

type auditKey struct{ cli.Output }

func (*auditKey) Examples() []string { return []string{"fairlead audit key > relay-audit.pem"} }

func (k *auditKey) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	key, err := c.AuditKey(ctx)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(key)
	}
	if _, err := parseKey([]byte(key.PublicKey), "the relay's answer"); err != nil {
		return err
	}
	t.Printf("%s\n", strings.TrimSpace(key.PublicKey))
	return nil
}

func parseKey(b []byte, where string) (ed25519.PublicKey, error) {
	bad := &protocol.Error{Code: protocol.CodeInvalid, Message: where + " holds no Ed25519 public key in PEM form", Hint: "fairlead audit key prints one"}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, bad
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	key, ok := pub.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, bad
	}
	return key, nil
}

type auditExport struct {
	After       uint64 `placeholder:"SEQ" help:"Only records after this sequence number."`
	Checkpoints bool   `help:"Write the signed checkpoints instead of the log."`
}

func (*auditExport) Examples() []string {
	return []string{"fairlead audit export > audit.log", "fairlead audit export --checkpoints > checkpoints.jsonl", "fairlead audit verify --log audit.log --checkpoints checkpoints.jsonl --key relay-audit.pem"}
}

func (k *auditExport) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var src io.Reader
	if k.Checkpoints {
		body, err := c.AuditCheckpoints(ctx)
		if err != nil {
			return err
		}
		defer body.Close()
		src = body
	} else {
		head, err := readCheckpoints(ctx, c)
		if err != nil {
			return err
		}
		pages := newPages(ctx, c, k.After, head)
		defer pages.Close()
		src = pages
	}
	if _, err := io.Copy(t.Data(), src); err != nil {
		return fmt.Errorf("export the audit log: %w", err)
	}
	return nil
}

func readCheckpoints(ctx context.Context, c *client.Client) ([]audit.Checkpoint, error) {
	body, err := c.AuditCheckpoints(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return parseCheckpoints(body)
}

func parseCheckpoints(r io.Reader) ([]audit.Checkpoint, error) {
	var all []audit.Checkpoint
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 64<<10)
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		cp, err := audit.ParseCheckpoint(lines.Bytes())
		if err != nil {
			return nil, tampered(fmt.Errorf("checkpoint %d: %w", n, err))
		}
		all = append(all, cp)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	return all, nil
}

// exitTampered is the status of a log that is not whole (EX_DATAERR).
const exitTampered = 65

func tampered(err error) error {
	return &cli.ExitError{Status: exitTampered, Err: fmt.Errorf("the audit log is NOT whole: %w", err)}
}

// pages reads the raw chain page after page. The relay may record each reading, so the log can grow while it is read: it
// ends at the first short page behind the last checkpoint that was known before.
type pages struct {
	ctx    context.Context
	c      *client.Client
	after  uint64
	target uint64
	body   io.ReadCloser
	lines  *bufio.Reader
	count  int // lines of this page
	rest   []byte
	mid    bool // rest ends within a line
	done   bool
}

const (
	pageLines  = 10_000
	shortPage  = 100
	maxSeqText = 64
)

func newPages(ctx context.Context, c *client.Client, after uint64, checkpoints []audit.Checkpoint) *pages {
	p := &pages{ctx: ctx, c: c, after: after}
	if n := len(checkpoints); n > 0 {
		p.target = checkpoints[n-1].Seq
	}
	return p
}

// Read implements io.Reader.
func (p *pages) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.done {
			return 0, io.EOF
		}
		if err := p.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// fill gets the next part of a line, or the next page.
func (p *pages) fill() error {
	if p.body == nil {
		body, err := p.c.AuditLog(p.ctx, p.after, pageLines)
		if err != nil {
			return err
		}
		p.body, p.lines, p.count = body, bufio.NewReaderSize(body, 64<<10), 0
	}
	part, err := p.lines.ReadSlice('\n')
	if len(part) > 0 {
		if !p.mid {
			p.count++
			if seq, ok := seqOf(part); ok {
				p.after = seq
			}
		}
		p.mid = part[len(part)-1] != '\n'
		p.rest = part // valid until the next read of p.lines, which comes after it is used up
	}
	switch {
	case err == nil || errors.Is(err, bufio.ErrBufferFull):
		return nil
	case !errors.Is(err, io.EOF):
		return &protocol.Error{Code: protocol.CodeInterrupted, Message: "the log broke off while it was read", Cause: err}
	}
	p.body.Close()
	p.body = nil
	p.done = p.count == 0 || p.mid || p.count < shortPage && p.after >= p.target
	return nil
}

// Close ends the reading.
func (p *pages) Close() {
	if p.body != nil {
		p.body.Close()
	}
}

// seqOf reads the sequence number at the beginning of a line; the verifier checks the rest.
func seqOf(line []byte) (uint64, bool) {
	rest, ok := bytes.CutPrefix(line[:min(len(line), maxSeqText)], []byte(`{"seq":`))
	digits, _, ok2 := bytes.Cut(rest, []byte(","))
	n, err := strconv.ParseUint(string(digits), 10, 64)
	return n, ok && ok2 && err == nil
}

type auditVerify struct {
	Key         string   `type:"path" placeholder:"FILE" help:"Public key that was got earlier (fairlead audit key). Without it the relay's own word is taken, which proves nothing against the relay."`
	Log         string   `type:"path" placeholder:"FILE" help:"Verify an exported log instead of the relay's; needs no relay."`
	Checkpoints string   `type:"path" placeholder:"FILE" help:"Exported checkpoints that go with --log."`
	Expect      []string `sep:"none" placeholder:"SEQ:HASH" help:"A record known from elsewhere that the log must hold: shows a cut tail. May be given several times."`
	cli.Output
}

func (*auditVerify) Examples() []string {
	return []string{
		"fairlead audit verify --key relay-audit.pem",
		"# offline, from an export", "fairlead audit verify --log audit.log --checkpoints checkpoints.jsonl --key relay-audit.pem",
	}
}

// A verdict is what verify prints.
type verdict struct {
	Whole       bool   `json:"whole"`
	Records     uint64 `json:"records"`
	First       uint64 `json:"first"`
	Last        uint64 `json:"last"`
	LastHash    string `json:"last_hash"`
	Proven      uint64 `json:"proven_through"` // a checkpoint's signature or an expected head vouches up to here
	Checkpoints int    `json:"checkpoints"`
	Key         string `json:"key,omitempty"`
	KeyGiven    bool   `json:"key_given"`
	Anchored    bool   `json:"anchored"`
}

func (k *auditVerify) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	heads, err := parseHeads(k.Expect)
	if err != nil {
		return err
	}
	if k.Log == "" && k.Checkpoints != "" {
		return cli.Usage("--checkpoints goes with --log")
	}
	var key ed25519.PublicKey
	if k.Key != "" {
		b, err := os.ReadFile(k.Key)
		if err != nil {
			return fmt.Errorf("read key: %w", err)
		}
		if key, err = parseKey(b, k.Key); err != nil {
			return err
		}
	}
	var lines io.Reader
	var checkpoints []audit.Checkpoint
	if k.Log != "" {
		f, cps, err := k.files()
		if err != nil {
			return err
		}
		defer f.Close()
		lines, checkpoints = f, cps
	} else {
		c, err := r.open(t)
		if err != nil {
			return err
		}
		defer c.Close()
		if key == nil {
			if key, err = fetchKey(ctx, c); err != nil {
				return err
			}
			t.Notef("the key is the relay's own word: keep it (fairlead audit key) and pass --key to prove anything against the relay\n")
		}
		if checkpoints, err = readCheckpoints(ctx, c); err != nil {
			return err
		}
		p := newPages(ctx, c, 0, checkpoints)
		defer p.Close()
		lines = p
	}
	return k.verify(t, lines, key, checkpoints, heads)
}

func fetchKey(ctx context.Context, c *client.Client) (ed25519.PublicKey, error) {
	answer, err := c.AuditKey(ctx)
	if err != nil {
		return nil, err
	}
	return parseKey([]byte(answer.PublicKey), "the relay's answer")
}

func (k *auditVerify) files() (*os.File, []audit.Checkpoint, error) {
	var checkpoints []audit.Checkpoint
	if k.Checkpoints != "" {
		f, err := os.Open(k.Checkpoints)
		if err != nil {
			return nil, nil, fmt.Errorf("read checkpoints: %w", err)
		}
		defer f.Close()
		if checkpoints, err = parseCheckpoints(f); err != nil {
			return nil, nil, err
		}
	}
	f, err := os.Open(k.Log)
	if err != nil {
		return nil, nil, fmt.Errorf("read log: %w", err)
	}
	return f, checkpoints, nil
}

func (k *auditVerify) verify(t *cli.Term, lines io.Reader, key ed25519.PublicKey, checkpoints []audit.Checkpoint, heads []audit.Head) error {
	in := bufio.NewReaderSize(lines, 64<<10)
	from := audit.Genesis
	if start, err := in.Peek(maxSeqText); len(start) > 0 || errors.Is(err, io.EOF) {
		if seq, ok := seqOf(start); ok && seq > 1 { // older records were released
			from = audit.Head{Seq: seq - 1}
		}
	} else if err != nil {
		return err
	}
	v := audit.Verifier{Expect: heads}
	if key != nil {
		v.Keys = []ed25519.PublicKey{key}
	}
	report, err := v.Lines(in, from, checkpoints)
	var te *audit.TamperError
	if errors.As(err, &te) {
		return tampered(err)
	}
	if err != nil {
		return err
	}
	if key != nil && report.Records > 0 && len(checkpoints) == 0 {
		return tampered(errors.New("there is no signed checkpoint"))
	}
	d := verdict{
		Whole: true, Records: report.Records, First: report.First.Seq + 1, Last: report.Last.Seq, LastHash: report.Last.Hash,
		Proven: report.Proven, Checkpoints: report.Checkpoints, KeyGiven: k.Key != "", Anchored: report.Anchored,
	}
	if key != nil {
		d.Key = audit.KeyID(key)
	}
	if k.JSON() {
		return t.JSON(d)
	}
	if d.Records == 0 {
		t.Printf("the log is empty\n")
		return nil
	}
	t.Printf("the log is whole: records %d to %d, each chained to the one before it\n", d.First, d.Last)
	if d.Proven == 0 {
		t.Printf("  signed through  none of them yet; the relay signs within a minute (key %s)\n", d.Key)
	} else {
		t.Printf("  signed through  %d, by %s of key %s\n", d.Proven, count(int64(d.Checkpoints), "checkpoint"), d.Key)
	}
	if !d.Anchored {
		t.Printf("  begins at       %d: older records were released, and no checkpoint vouches for the point before\n", d.First)
	}
	t.Printf("  last record     %d:%s (keep it: --expect shows a tail that was cut)\n", d.Last, d.LastHash)
	return nil
}

func parseHeads(texts []string) ([]audit.Head, error) {
	var heads []audit.Head
	for _, s := range texts {
		seq, hash, ok := strings.Cut(s, ":")
		n, err := strconv.ParseUint(seq, 10, 64)
		if !ok || err != nil || n == 0 || len(hash) != len(audit.GenesisHash) {
			return nil, cli.Usage("--expect %q: want SEQ:HASH as verify prints it", s)
		}
		heads = append(heads, audit.Head{Seq: n, Hash: hash})
	}
	return heads, nil
}
