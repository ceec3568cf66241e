//go:build linux

package hostile_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead/internal/testenv"
)

// record is one line of an audit log.
type record struct {
	Seq  uint64          `json:"seq"`
	Prev string          `json:"prev"`
	Body json.RawMessage `json:"body"`
}

func parseLine(line []byte) (r record) {
	_ = json.Unmarshal(line, &r)
	return r
}

func hashOf(line []byte) string {
	h := sha256.Sum256(bytes.TrimRight(line, "\n"))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// event is what the tests look at of an audit event.
type event struct {
	Kind      string            `json:"kind"`
	RequestID string            `json:"request_id"`
	Principal string            `json:"principal"`
	Decision  string            `json:"decision"`
	Rule      string            `json:"rule"`
	Code      string            `json:"code"`
	Status    string            `json:"status"`
	Target    string            `json:"target"`
	Operation string            `json:"operation"`
	Detail    map[string]string `json:"detail"`
	Claimed   map[string]string `json:"claimed"`
	raw       string
}

// auditIndex finds events of the agent's own log by request; it reads each file on from where it was.
type auditIndex struct {
	offset map[string]int64
	byID   map[string]event // the last of a request
	all    []event
}

// events reads the agent's log on disk.
func (s *site) events(t testing.TB) []event {
	t.Helper()
	x := &s.audit
	if x.offset == nil {
		x.offset, x.byID = map[string]int64{}, map[string]event{}
	}
	files, _ := filepath.Glob(filepath.Join(s.data(), "audit", "*.log"))
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Seek(x.offset[name], io.SeekStart)
		b, err := io.ReadAll(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		whole := bytes.LastIndexByte(b, '\n') + 1
		x.offset[name] += int64(whole)
		for _, line := range bytes.Split(b[:whole], []byte("\n")) {
			if len(line) == 0 {
				continue
			}
			var e event
			if err := json.Unmarshal(parseLine(line).Body, &e); err != nil {
				t.Fatalf("a line of the audit log: %v: %.200s", err, line)
			}
			e.raw = string(line)
			x.all = append(x.all, e)
			if e.RequestID != "" {
				x.byID[e.RequestID] = e
			}
		}
	}
	return x.all
}

// event waits for the last event of a request.
func (s *site) event(t testing.TB, id string) (e event) {
	t.Helper()
	testenv.Eventually(t, "an event of "+id, func() bool {
		s.events(t)
		var ok bool
		e, ok = s.audit.byID[id]
		return ok && e.Kind != "operation.intent"
	})
	return e
}
