package relay

import (
	"bytes"
	"encoding/json"
	"regexp"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
)

// FuzzOfAgent: a body is taken as an agent's own exactly if encoding/json finds the agent in it, and one member of each name.
func FuzzOfAgent(f *testing.F) {
	for _, s := range []string{`{"source":"agt_1","workspace":"ws_1"}`, `{"source":"\u0061gt_1","workspace":"ws_1"}`, `{"source":"agt_1","workspace":"ws_1","source":"agt_1"}`, `{"source":["agt_1"],"workspace":"ws_1"}`,
		`{"Source":"agt_1","workspace":"ws_1"}`, `{"source":null,"workspace":"ws_1"}`, `{"seq":1,"source":"agt_1","workspace":"ws_1"}`, `{"a":{"a":1,"a":2},"b":["}"],"source":"agt_1","workspace":"ws_1"}`, `{"source":"agt_1\\","workspace":"ws_1"}`, `{}`, `[]`, `null`, `"x"`} {
		f.Add([]byte(s))
	}
	plain := regexp.MustCompile(`^[a-z0-9_]*$`)
	f.Fuzz(func(t *testing.T, body []byte) {
		var kept bytes.Buffer
		if json.Compact(&kept, body) != nil || !bytes.Equal(kept.Bytes(), body) {
			return
		}
		want := body[0] == '{'
		var meta struct{ Workspace, Source string }
		if json.Unmarshal(body, &meta) != nil || meta.Workspace != "ws_1" || meta.Source != "agt_1" {
			want = false
		}
		seen := map[string]bool{"seq": true}
		dec := json.NewDecoder(bytes.NewReader(body))
		for _, _ = dec.Token(); want && dec.More(); {
			at := dec.InputOffset()
			name, err := dec.Token()
			n := name.(string)
			// The name as it is spelled, without the comma before it.
			raw := bytes.TrimPrefix(body[at:dec.InputOffset()], []byte(","))
			if err != nil || seen[n] || !plain.MatchString(n) || string(raw) != `"`+n+`"` {
				want = false
			}
			seen[n] = true
			var skip json.RawMessage
			if err := dec.Decode(&skip); err != nil {
				t.Fatal(err)
			}
		}
		w, s, _, ok := plainMembers(body)
		if got := ok && isText(w, "ws_1") && isText(s, "agt_1"); got != want {
			t.Fatalf("%q: %v, want %v", body, got, want)
		}
	})
}

func TestSealedRecordIsWrittenAsMarshalWritesIt(t *testing.T) {
	for _, agent := range []string{"agt_1", `<"é`} {
		s := sealedRecord{Sealed: audit.Sealed{ID: "evt_1", Time: time.Unix(1, 2).UTC(), Workspace: "ws_1", Kind: "agent.record", Sealed: []byte{1}}, Agent: agent, AgentSeq: 7, AgentHash: audit.GenesisHash}
		want, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.encode(); err != nil || string(got) != string(want) {
			t.Errorf("%s, %v\nand json.Marshal writes\n%s", got, err, want)
		}
	}
}
