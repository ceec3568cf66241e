package relay

import (
	"bytes"
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// BenchmarkEvents is all that a batch of 50 records costs but the disk: read, held against the chain, sealed.
func BenchmarkEvents(b *testing.B) {
	r := open(b, b.TempDir())
	b.Cleanup(func() { r.close() })
	s := newSite(b, r, "berlin")
	body, err := json.Marshal(protocol.EventBatch{Records: s.write(b, 50, 0), Oldest: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		data, err := readBody(httptest.NewRequest("POST", protocol.PathEvents, bytes.NewReader(body)))
		if err != nil {
			b.Fatal(err)
		}
		batch, err := audit.ParseBatch(data)
		if err != nil {
			b.Fatal(err)
		}
		recs, err := audit.Follow(audit.Genesis, batch.Records)
		if err != nil || len(recs) != 50 {
			b.Fatal(err)
		}
		for _, rec := range recs {
			if _, err := r.wrap(s.workspace, s.agent, rec); err != nil {
				b.Fatal(err)
			}
		}
	}
}
