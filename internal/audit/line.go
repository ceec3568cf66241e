package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/fairleadhq/fairlead/internal/plainjson"
	"github.com/fairleadhq/fairlead/protocol"
)

// Limits of a record.
const (
	MaxBodyBytes = 64 << 10           // one Append; a sealed event of MaxEventBytes fits
	MaxLineBytes = MaxBodyBytes + 512 // a record on disk, without its newline
)

// Head names a point in a log: the hash of the record with that number. The zero Head and Genesis are the point before record 1.
type Head = protocol.LogHead

// GenesisHash is what record 1 holds as prev.
const GenesisHash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// Genesis is the head of an empty log.
var Genesis = Head{Hash: GenesisHash}

// Record is one line of a log.
type Record struct {
	Seq     uint64
	Prev    string // hash of the record before
	Time    time.Time
	Durable uint64          // what was on disk when the record's group was formed; 0 when the line does not say
	Body    json.RawMessage // as appended, compacted; aliases Line
	Line    []byte          // without the newline; survives encoding/json as a json.RawMessage byte for byte
	Hash    string          // of Line
}

// Head is the point right after the record.
func (r Record) Head() Head { return Head{Seq: r.Seq, Hash: r.Hash} }

func hashOf(line []byte) string {
	h := sha256.Sum256(line)
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// ParseLine reads one line without its newline. It takes only the exact form that a Log writes, so that a record has one
// spelling. The Record aliases line.
func ParseLine(line []byte) (Record, error) {
	r := Record{Line: line}
	if len(line) > MaxLineBytes {
		return r, errors.New("line is too long")
	}
	p := line
	var ok bool
	if p, ok = bytes.CutPrefix(p, []byte(`{"seq":`)); !ok {
		return r, errors.New("line does not start with a sequence number")
	}
	var err error
	if r.Seq, p, err = cutNumber(p); err != nil {
		return r, fmt.Errorf("seq: %w", err)
	}
	if p, ok = bytes.CutPrefix(p, []byte(`,"prev":"`)); !ok || len(p) < len(GenesisHash) {
		return r, errors.New("prev is missing")
	}
	r.Prev, p = string(p[:len(GenesisHash)]), p[len(GenesisHash):]
	if !validHash(r.Prev) {
		return r, errors.New("prev is not a hash")
	}
	if p, ok = bytes.CutPrefix(p, []byte(`","time":"`)); !ok {
		return r, errors.New("time is missing")
	}
	stamp, p, ok := bytes.Cut(p, []byte(`"`))
	if r.Time, err = time.Parse(time.RFC3339Nano, string(stamp)); !ok || err != nil || r.Time.Location() != time.UTC ||
		string(r.Time.AppendFormat(nil, time.RFC3339Nano)) != string(stamp) {
		return r, errors.New("time is malformed")
	}
	if rest, ok := bytes.CutPrefix(p, []byte(`,"durable":`)); ok {
		if r.Durable, p, err = cutNumber(rest); err != nil || r.Durable >= r.Seq {
			return r, errors.New("durable is malformed")
		}
	}
	if p, ok = bytes.CutPrefix(p, []byte(`,"body":`)); !ok {
		return r, errors.New("body is missing")
	}
	if p, ok = bytes.CutSuffix(p, []byte(`}`)); !ok {
		return r, errors.New("the line is not complete")
	}
	// Another spelling would not pass through encoding/json unchanged: whoever keeps the line within JSON, as a relay does, would
	// keep one with another hash.
	if rest, ok := plainjson.Value(p); !ok || len(rest) > 0 || len(p) > MaxBodyBytes {
		if c, err := canonical(p); err != nil || !bytes.Equal(c, p) {
			return r, errors.New("body is not one JSON value as a log writes it")
		}
	}
	r.Body = p
	r.Hash = hashOf(line)
	return r, nil
}

// cutNumber reads a positive decimal without leading zeros.
func cutNumber(p []byte) (uint64, []byte, error) {
	i := 0
	for i < len(p) && p[i] >= '0' && p[i] <= '9' {
		i++
	}
	if i == 0 || p[0] == '0' {
		return 0, p, errors.New("not a positive number")
	}
	n, err := strconv.ParseUint(string(p[:i]), 10, 63)
	return n, p[i:], err
}

func validHash(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == sha256.Size
}

// appendLine writes a record's line without newline.
func appendLine(dst []byte, seq uint64, prev string, t time.Time, durable uint64, body []byte) []byte {
	dst = append(dst, `{"seq":`...)
	dst = strconv.AppendUint(dst, seq, 10)
	dst = append(dst, `,"prev":"`...)
	dst = append(dst, prev...)
	dst = append(dst, `","time":"`...)
	dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	dst = append(dst, '"')
	if durable > 0 {
		dst = append(dst, `,"durable":`...)
		dst = strconv.AppendUint(dst, durable, 10)
	}
	dst = append(dst, `,"body":`...)
	dst = append(dst, body...)
	return append(dst, '}')
}
