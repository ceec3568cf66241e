package audit

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/fairleadhq/fairlead/internal/plainjson"
	"github.com/fairleadhq/fairlead/protocol"
)

// AppendBatch appends the protocol.EventBatch of records, at least one, as json.Marshal writes it: a line goes through that
// unchanged, but not for nothing.
func AppendBatch(dst []byte, records []Record, oldest uint64) []byte {
	dst = append(dst, `{"records":`...)
	sep := byte('[')
	for _, r := range records {
		dst = append(append(dst, sep), r.Line...)
		sep = ','
	}
	dst = append(dst, ']')
	if oldest > 0 {
		dst = strconv.AppendUint(append(dst, `,"oldest":`...), oldest, 10)
	}
	return append(dst, '}')
}

// ParseBatch is json.Unmarshal for a protocol.EventBatch, fast for one that AppendBatch wrote. The records may alias data.
func ParseBatch(data []byte) (b protocol.EventBatch, err error) {
	if !parseBatch(data, &b) {
		b = protocol.EventBatch{}
		err = json.Unmarshal(data, &b)
	}
	return b, err
}

func parseBatch(p []byte, b *protocol.EventBatch) bool {
	p, ok := bytes.CutPrefix(p, []byte(`{"records":[`))
	for ok {
		var rest []byte
		if rest, ok = plainjson.Value(p); !ok || len(rest) == 0 {
			return false
		}
		b.Records = append(b.Records, p[:len(p)-len(rest):len(p)-len(rest)])
		if p, ok = bytes.CutPrefix(rest, []byte{','}); !ok {
			p, ok = bytes.CutPrefix(rest, []byte{']'})
			break
		}
	}
	if rest, has := bytes.CutPrefix(p, []byte(`,"oldest":`)); ok && has {
		var err error
		if b.Oldest, p, err = cutNumber(rest); err != nil {
			return false
		}
	}
	return ok && string(p) == "}"
}
