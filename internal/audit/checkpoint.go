package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

const checkpointFile = "checkpoints.jsonl"

// Checkpoint is a signed head: up to Seq the log was as Hash says.
type Checkpoint struct {
	Seq    uint64 `json:"seq"`
	Hash   string `json:"hash"`
	Time   string `json:"time"` // RFC 3339, UTC; a claim
	Source string `json:"source,omitempty"`
	Key    string `json:"key"` // KeyID of the signer
	Sig    string `json:"sig"` // base64url of Ed25519 over the text of signed
}

// KeyID names a public key: the first 16 characters of base64url(SHA-256(key)).
func KeyID(pub ed25519.PublicKey) string {
	h := sha256.Sum256(pub)
	return base64.RawURLEncoding.EncodeToString(h[:])[:16]
}

// Head is the point that the checkpoint signs.
func (c Checkpoint) Head() Head { return Head{Seq: c.Seq, Hash: c.Hash} }

// signed is the text under the signature: a name and the fields, each on a line of its own. No field can hold a newline.
func (c Checkpoint) signed() []byte {
	return []byte("fairlead-audit-checkpoint/1\n" + strconv.FormatUint(c.Seq, 10) + "\n" + c.Hash + "\n" + c.Time + "\n" +
		c.Source + "\n" + c.Key + "\n")
}

// Verify reports whether one of the keys signed the checkpoint.
func (c Checkpoint) Verify(keys ...ed25519.PublicKey) error {
	sig, err := base64.RawURLEncoding.Strict().DecodeString(c.Sig)
	if err != nil || !validHash(c.Hash) {
		return errors.New("checkpoint is malformed")
	}
	for _, k := range keys {
		if len(k) == ed25519.PublicKeySize && KeyID(k) == c.Key {
			if !ed25519.Verify(k, c.signed(), sig) {
				return errors.New("checkpoint has a wrong signature")
			}
			return nil
		}
	}
	return fmt.Errorf("checkpoint is signed with the unknown key %q", clip(c.Key))
}

func clip(s string) string {
	if len(s) > 32 {
		return s[:32]
	}
	return s
}

// ParseCheckpoint reads one line of checkpoints.jsonl in exactly the form that a Log writes.
func ParseCheckpoint(line []byte) (Checkpoint, error) {
	var c Checkpoint
	if err := json.Unmarshal(line, &c); err != nil {
		return c, errors.New("checkpoint is not JSON")
	}
	if again, err := json.Marshal(c); err != nil || !bytes.Equal(again, line) {
		return c, errors.New("checkpoint is not in canonical form")
	}
	return c, nil
}

// splitCheckpoints parses a file. rest is what stands after the last good line that is preceded by good lines only.
func splitCheckpoints(data []byte) (cps []Checkpoint, rest []byte) {
	for len(data) > 0 {
		line, next, ok := bytes.Cut(data, []byte("\n"))
		if !ok {
			break
		}
		c, err := ParseCheckpoint(line)
		if err != nil {
			break
		}
		cps = append(cps, c)
		data = next
	}
	return cps, data
}

// Checkpoints reads the log's signed heads, oldest first.
func (l *Log) Checkpoints() ([]Checkpoint, error) {
	data, err := os.ReadFile(filepath.Join(l.cfg.Dir, checkpointFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	cps, _ := splitCheckpoints(data)
	return cps, nil
}

// checkpoint signs the durable head if that has moved. A fault makes the log bad.
func (l *Log) checkpoint(sync bool) {
	l.mu.Lock()
	bad := l.bad
	l.mu.Unlock()
	if bad != nil {
		return
	}
	if err := l.writeCheckpoint(sync); err != nil {
		l.fail(nil, err)
	}
}

func (l *Log) writeCheckpoint(sync bool) error {
	head := l.Head()
	fresh := !l.cpAny || head.Seq != l.cpSeq
	if l.cfg.Key == nil || !fresh && !(sync && l.cpDirty) {
		return nil
	}
	if l.cpFile == nil {
		f, err := l.disk.open(filepath.Join(l.cfg.Dir, checkpointFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND)
		if err != nil {
			return fmt.Errorf("open checkpoints: %w", err)
		}
		l.cpFile = f
	}
	if fresh {
		line, err := json.Marshal(l.sign(head))
		if err != nil {
			return fmt.Errorf("encode checkpoint: %w", err)
		}
		line = append(line, '\n')
		if err := l.disk.write(l.cpFile, line); err != nil {
			return fmt.Errorf("write checkpoint: %w", err)
		}
		l.cpSize += int64(len(line))
		l.cpSeq, l.cpAny, l.cpDirty = head.Seq, true, true
		l.mu.Lock()
		l.total += int64(len(line))
		l.mu.Unlock()
	}
	if sync {
		if err := l.disk.sync(l.cpFile); err != nil {
			return fmt.Errorf("sync checkpoints: %w", err)
		}
		l.cpDirty = false
	}
	return nil
}

func (l *Log) sign(head Head) Checkpoint {
	c := Checkpoint{
		Seq: head.Seq, Hash: head.Hash, Time: time.Now().UTC().Format(time.RFC3339Nano), Source: l.cfg.Source, Key: l.kid,
	}
	c.Sig = base64.RawURLEncoding.EncodeToString(ed25519.Sign(l.cfg.Key, c.signed()))
	return c
}

// loadCheckpoints reads the file. rest is a torn tail.
func (l *Log) loadCheckpoints() (cps []Checkpoint, good, rest []byte, err error) {
	data, err := os.ReadFile(filepath.Join(l.cfg.Dir, checkpointFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, nil, nil, fmt.Errorf("read checkpoints: %w", err)
	}
	cps, rest = splitCheckpoints(data)
	return cps, data[:len(data)-len(rest)], rest, nil
}

// resetCheckpoints puts good onto a new inode, for after a failed fsync the old one's pages cannot be trusted.
func (l *Log) resetCheckpoints(cps []Checkpoint, good, rest []byte) error {
	if len(rest) > 0 { // checkpoints between two syncs may be torn; what they signed is durable all the same
		l.setAside("checkpoints", rest)
	}
	l.cpSize, l.cpSeq, l.cpAny, l.cpDirty = int64(len(good)), 0, len(cps) > 0, false
	if len(cps) == 0 && len(rest) == 0 {
		return nil
	}
	if len(cps) > 0 {
		l.cpSeq = cps[len(cps)-1].Seq
	}
	if err := l.disk.replace(l.cfg.Dir, filepath.Join(l.cfg.Dir, checkpointFile), good); err != nil {
		return fmt.Errorf("rewrite checkpoints: %w", err)
	}
	return nil
}

// trimCheckpoints forgets those before seq.
func (l *Log) trimCheckpoints(seq uint64) error {
	cps, err := l.Checkpoints()
	if err != nil || len(cps) == 0 || cps[0].Seq >= seq {
		return err
	}
	var keep bytes.Buffer
	for _, c := range cps {
		if c.Seq >= seq {
			line, err := json.Marshal(c)
			if err != nil {
				return fmt.Errorf("encode checkpoint: %w", err)
			}
			keep.Write(line)
			keep.WriteByte('\n')
		}
	}
	if l.cpFile != nil { // Windows does not replace an open file
		_ = l.disk.close(l.cpFile)
		l.cpFile = nil
	}
	path := filepath.Join(l.cfg.Dir, checkpointFile)
	if err := l.disk.replace(l.cfg.Dir, path, keep.Bytes()); err != nil {
		return fmt.Errorf("trim checkpoints: %w", err)
	}
	l.mu.Lock()
	l.total += int64(keep.Len()) - l.cpSize
	l.mu.Unlock()
	l.cpSize = int64(keep.Len())
	return nil
}
