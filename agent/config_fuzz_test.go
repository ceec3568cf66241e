package agent

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
)

// TestTruncatedFileNeverAllowsMore cuts a file at each byte (P13): what is accepted must not allow what the whole denies
// unless the cut is at the end of a line, which the Watcher waits out.
func TestTruncatedFileNeverAllowsMore(t *testing.T) {
	whole := []byte("version: 1\nallow:\n  - {cidr: 10.20.0.0/16, ports: [3306]}\ndeny:\n  - {cidr: 10.20.99.0/24}\n")
	denied := &protocol.Request{Kind: "tcp", Profile: "-", Operation: "dial", Host: "10.20.99.1", Port: 3306}
	accepted := 0
	for n := range len(whole) {
		c, err := parse("/etc/agent.yaml", whole[:n])
		if err != nil {
			continue
		}
		accepted++
		p, err := c.Policy()
		if err != nil {
			t.Fatal(err)
		}
		if p.Decide(operation(denied)).Allow && whole[n] != '\n' && whole[n-1] != '\n' {
			t.Errorf("cut at byte %d: %q", n, whole[:n])
		}
	}
	if accepted == 0 {
		t.Error("no cut was accepted: the test proves nothing")
	}
}

func FuzzDecode(f *testing.F) {
	for _, name := range []string{"agent.yaml", "agent.full.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "configs", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("version: 1\nallow: [{cidr: \"::/0\", ports: [\"1-65535\"]}]\ndeny: [{host: a.b}]\n"))
	f.Add([]byte("version: 1\ndatabase:\n  \"a.b\": {adapter: sqlite, path: /x, statements: {s: {sql: select 1}}}\n"))
	ops := []*protocol.Request{
		{Kind: "tcp", Profile: "-", Operation: "dial", Host: "169.254.169.254", Port: 80},
		{Kind: "files", Profile: "hr", Operation: "read", Path: "../../etc/passwd"},
		{Kind: "http", Profile: "crm", Operation: "request", Method: "GET", Target: "/../x"},
		{Kind: "database", Profile: "sales", Operation: "schema"},
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parse("/etc/fairlead/agent.yaml", data)
		if err != nil {
			var fs config.Faults
			if !errors.As(err, &fs) || len(fs) == 0 {
				t.Fatalf("not Faults: %v", err)
			}
			return
		}
		p, err := c.Policy()
		if err != nil {
			t.Fatalf("accepted, yet no policy: %v", err)
		}
		again, err := parse("/etc/fairlead/agent.yaml", data)
		if err != nil {
			t.Fatal(err)
		}
		q, err := again.Policy()
		if err != nil || p.Digest() != q.Digest() {
			t.Fatalf("two readings differ: %v", err)
		}
		for i, r := range ops {
			d := p.Decide(operation(r))
			if i == 1 || i == 2 {
				if d.Allow {
					t.Fatalf("%s %s%s is allowed by %s", r.Operation, r.Path, r.Target, data)
				}
			} else if d.Allow && i == 0 && !bytes.Contains(data, []byte("169.254.169.254")) && !bytes.Contains(data, []byte("a9fe")) && !bytes.Contains(data, []byte("A9FE")) && !bytes.Contains(data, []byte(`\`)) {
				t.Fatalf("metadata is allowed by %s", data)
			}
		}
	})
}

func operation(r *protocol.Request) policy.Operation { return policy.Operation{Request: r} }
