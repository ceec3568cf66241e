package audit

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/plainjson"
)

// Recorder turns events into records of one log: it fills in who and when, masks, seals and appends. Safe for concurrent use; do
// not copy it or change its fields after the first Record.
type Recorder struct {
	Log       *Log
	Masker    *Masker
	Source    string // of each event; empty: what the event says
	Workspace string // of each event; empty: what the event says
	// Seal encrypts an encoded event for a workspace; nil: events are recorded in the clear. The chain is over the ciphertext, so
	// it can be verified without any key but the checkpoint key.
	Seal func(workspace string, plain []byte) ([]byte, error)

	mu      sync.Mutex
	full    bool // the log was found full and an event says so
	refused int64
}

// Sealed is the body of a record whose event is sealed.
type Sealed struct {
	ID        string    `json:"id"`
	Time      time.Time `json:"time"`
	Workspace string    `json:"workspace"`
	Kind      Kind      `json:"kind"`
	Sealed    []byte    `json:"sealed"`
}

// AppendJSON appends s, whose Sealed is not nil, as json.Marshal writes it.
func (s Sealed) AppendJSON(dst []byte) ([]byte, error) {
	dst = plainjson.AppendString(append(dst, `{"id":`...), s.ID)
	dst, err := s.Time.AppendText(append(dst, `,"time":"`...))
	if err != nil {
		return nil, fmt.Errorf("encode the time of a sealed event: %w", err)
	}
	dst = plainjson.AppendString(append(dst, `","workspace":`...), s.Workspace)
	dst = plainjson.AppendString(append(dst, `,"kind":`...), string(s.Kind))
	dst = base64.StdEncoding.AppendEncode(append(dst, `,"sealed":"`...), s.Sealed)
	return append(dst, `"}`...), nil
}

// NewID gives a fresh event id: "evt_" and 26 characters, 128 random bits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return string(idEncoding.AppendEncode(append(make([]byte, 0, 32), "evt_"...), b[:]))
}

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Record appends the event and returns at once; the ticket tells when it is durable. It sets ID and Time, and Source and Workspace
// where the Recorder has them. The error wraps ErrUnavailable, whatever the cause: the act may not be done.
//
// When the log is full one event of kind audit.full is put into its reserve, and the first event after there is room again is
// preceded by one of kind audit.resumed that counts what was refused.
func (r *Recorder) Record(e Event) (*Ticket, error) {
	r.mu.Lock()
	wasFull, refused := r.full, r.refused
	r.mu.Unlock()
	if wasFull {
		resumed := map[string]string{"refused": strconv.FormatInt(refused, 10)}
		if _, err := r.put(&Event{Kind: KindAuditResume, Workspace: e.Workspace, Detail: resumed}, r.Log.AppendMarshalled); err != nil {
			r.refuse(err)
			return nil, err
		}
		r.mu.Lock()
		r.full, r.refused = false, r.refused-refused
		r.mu.Unlock()
	}
	to := r.Log.AppendMarshalled
	if e.Kind == KindOutcome { // the act is done, and its intent is durable
		to = r.Log.appendSoon
	}
	t, err := r.put(&e, to)
	if err == nil {
		return t, nil
	}
	if first := r.refuse(err); first {
		// Without room even for this the log stands still all the same; nothing else can be done.
		_, _ = r.put(&Event{Kind: KindAuditFull, Workspace: e.Workspace, Reason: "the audit log has used up its size budget; operations are refused"},
			r.Log.appendReserved)
	}
	return nil, err
}

// refuse counts an event that could not be stored for want of room and reports whether it is the first.
func (r *Recorder) refuse(err error) bool {
	if !errors.Is(err, ErrFull) {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused++
	first := !r.full
	r.full = true
	return first
}

// put takes e over.
func (r *Recorder) put(e *Event, to func([]byte) (*Ticket, error)) (*Ticket, error) {
	e.ID, e.Time = NewID(), time.Now().UTC()
	if r.Source != "" {
		e.Source = r.Source
	}
	if r.Workspace != "" {
		e.Workspace = r.Workspace
	}
	body, err := encode(reflect.ValueOf(e).Elem(), r.Masker)
	if err == nil && r.Seal != nil {
		body, err = r.seal(e, body)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	t, err := to(body)
	if err != nil && !errors.Is(err, ErrUnavailable) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return t, err
}

func (r *Recorder) seal(e *Event, plain []byte) ([]byte, error) {
	sealed, err := r.Seal(e.Workspace, plain)
	if err != nil {
		return nil, fmt.Errorf("seal event: %w", err)
	}
	return Sealed{ID: e.ID, Time: e.Time, Workspace: e.Workspace, Kind: e.Kind, Sealed: sealed}.AppendJSON(make([]byte, 0, 256+2*len(sealed)))
}

// Unseal gives the plain event of a record's body. A body that is not sealed is given back as it is.
func Unseal(body json.RawMessage, open func(workspace string, sealed []byte) ([]byte, error)) (json.RawMessage, error) {
	var s Sealed
	if err := json.Unmarshal(body, &s); err != nil || s.Sealed == nil {
		return body, nil //nolint:nilerr // a body in the clear need not have Sealed's shape
	}
	plain, err := open(s.Workspace, s.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open sealed event %s: %w", clip(s.ID), err)
	}
	return plain, nil
}
