package audit

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

func TestBatchIsWrittenAsMarshalWritesIt(t *testing.T) {
	_, files, _ := pristine(t, 12)
	var lines []string
	for i := 1; i <= 12; i++ {
		lines = append(lines, strings.Fields(string(files[fmt.Sprintf("%020d.log", i)]))...)
	}
	if len(lines) != 12 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, oldest := range []uint64{0, 1, 1<<63 + 7} {
		var recs []Record
		want := protocol.EventBatch{Oldest: oldest}
		for _, line := range lines {
			recs = append(recs, Record{Line: []byte(line)})
			want.Records = append(want.Records, json.RawMessage(line))
			data, err := json.Marshal(want)
			must(t, err)
			got := AppendBatch(nil, recs, oldest)
			if string(got) != string(data) {
				t.Fatalf("%s\nand json.Marshal writes\n%s", got, data)
			}
			var fast protocol.EventBatch
			if ok := parseBatch(got, &fast); ok != (oldest < 1<<63) || ok && !reflect.DeepEqual(fast, want) {
				t.Fatalf("%v %+v", ok, fast)
			}
			if b, err := ParseBatch(got); err != nil || !reflect.DeepEqual(b, want) {
				t.Fatalf("%+v, %v", b, err)
			}
		}
	}
}

// FuzzParseBatch: what a relay takes, refuses and reads of a batch is what encoding/json would.
func FuzzParseBatch(f *testing.F) {
	for _, s := range []string{`{"records":[{"seq":1},{}],"oldest":7}`, `{"records":[{"seq":1}]}`, `{"records":[1,"a"],"oldest":0}`, `{"records":[]}`, `{"records":null}`, `{"records":[{}],"oldest":18446744073709551616}`,
		`{"records":[{}],"oldest":01}`, `{"records":[{}],"oldest":-1}`, `{"records":[{}],"oldest":1.0}`, `{"records":[{}],"records":[]}`, `{"oldest":1,"records":[{}]}`, `{"records":[{} ]}`, `{"records":[{}}}`, `{"records":[{}]}x`, `{"records":[{},]}`,
		`{"records":[{"a":1.5}]}`, `{"records":[{"a":"<é"}]}`, `{"records":[null]}`, `{"records":["\ud800"]}`, ` {"records":[{}]}`, `{"RECORDS":[{}]}`, `{"records":[{}],"Oldest":3}`, `{"records":[{}],"oldest":`, `{"records":[{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var want protocol.EventBatch
		werr := json.Unmarshal(data, &want)
		got, err := ParseBatch(append([]byte(nil), data...))
		if fmt.Sprint(err) != fmt.Sprint(werr) || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q is\n%+v %v\nand to encoding/json\n%+v %v", data, got, err, want, werr)
		}
	})
}

// FuzzSealed: AppendJSON writes what json.Marshal writes.
func FuzzSealed(f *testing.F) {
	f.Add("evt_1", "ws_1", "agent.record", []byte{1, 2, 3}, int64(1), int64(2))
	f.Add("a<b>&c\u2028\x00\xff\"\\\n\x7fé", "", "", []byte{}, int64(1)<<40, int64(999999999))
	f.Fuzz(func(t *testing.T, id, workspace, kind string, sealed []byte, sec, nsec int64) {
		s := Sealed{ID: id, Time: time.Unix(sec, nsec).UTC(), Workspace: workspace, Kind: Kind(kind), Sealed: sealed}
		want, werr := json.Marshal(s)
		got, err := s.AppendJSON(nil)
		if (err == nil) != (werr == nil) || string(got) != string(want) {
			t.Fatalf("%s, %v\nand json.Marshal writes\n%s, %v", got, err, want, werr)
		}
	})
}
