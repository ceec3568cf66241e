package audit

import (
	"encoding/json"
	"testing"
	"time"
)

// Of the record that one connection leaves: its intent.
func benchEvent() Event {
	return Event{Kind: KindIntent, RequestID: "req_z4xr5ifvoauzqmjy6dr7rbbmqe", Principal: "usr_a4xr5ifvoauzqmjy6dr7rbbmqe", PrincipalName: "anna", SourceAddress: "10.1.2.3",
		Agent: "agt_b4xr5ifvoauzqmjy6dr7rbbmqe", Group: "grp_c4xr5ifvoauzqmjy6dr7rbbmqe", Connection: "con_d4xr5ifvoauzqmjy6dr7rbbmqe", ConnectionName: "orders", Profile: "sales",
		Operation: "dial", Decision: "allow", Rule: "tcp.sales", Origin: "relay", DurationMs: 4,
		Claimed: map[string]string{"principal": "usr_a4xr5ifvoauzqmjy6dr7rbbmqe", "connection": "con_d4xr5ifvoauzqmjy6dr7rbbmqe"}}
}

func benchLines(b *testing.B, n int) (lines []json.RawMessage) {
	prev := Genesis
	for range n {
		e := benchEvent()
		e.ID, e.Time, e.Source, e.Workspace = NewID(), time.Now(), "agt_b4xr5ifvoauzqmjy6dr7rbbmqe", "ws_e4xr5ifvoauzqmjy6dr7rbbmqe"
		body, err := e.Encode(NewMasker(testMasker(b).Key))
		must(b, err)
		line := appendLine(nil, prev.Seq+1, prev.Hash, time.Now(), prev.Seq, body)
		r, err := ParseLine(line)
		must(b, err)
		prev = r.Head()
		lines = append(lines, line)
	}
	return lines
}

func BenchmarkFollow(b *testing.B) {
	lines := benchLines(b, 100)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Follow(Genesis, lines); err != nil {
			b.Fatal(err)
		}
	}
}

// All of a record but the disk.
func BenchmarkRecord(b *testing.B) {
	ticket := func([]byte) (*Ticket, error) { return nil, nil }
	for name, seal := range map[string]func(string, []byte) ([]byte, error){"clear": nil, "sealed": func(_ string, p []byte) ([]byte, error) { return p, nil }} {
		b.Run(name, func(b *testing.B) {
			r := &Recorder{Masker: NewMasker(testMasker(b).Key), Seal: seal, Source: "rly_1", Workspace: "ws_e4xr5ifvoauzqmjy6dr7rbbmqe"}
			e := benchEvent()
			b.ReportAllocs()
			for b.Loop() {
				e := e
				if _, err := r.put(&e, ticket); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
