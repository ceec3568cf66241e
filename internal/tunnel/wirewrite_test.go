package tunnel

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"
	"time"
)

// recorder is a connection that keeps what each Write was given.
type recorder struct {
	net.Conn
	writes [][]byte
}

func (r *recorder) Write(p []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(p))
	return len(p), nil
}
func (r *recorder) SetWriteDeadline(time.Time) error { return nil }

func recordedWire() (*wire, *recorder) {
	r := &recorder{}
	return newWire(r, nil, true, DefaultConfig().withDefaults(), func(error) {}, nil), r
}

func frame(typ byte, flags uint16, id, length uint32) []byte {
	b := []byte{0, typ}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	return binary.BigEndian.AppendUint32(b, length)
}

func put(t *testing.T, w *wire, frames ...[]byte) {
	t.Helper()
	for _, f := range frames {
		if _, err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenGoesWithTheFirstBytes(t *testing.T) {
	w, r := recordedWire()
	open, data, body := frame(typeWindow, flagSYN, 1, 0), frame(typeData, 0, 1, 5), []byte("hello")
	put(t, w, open)
	if len(r.writes) != 0 {
		t.Fatalf("an open left alone: %x", r.writes)
	}
	put(t, w, data, body)
	if want := bytes.Join([][]byte{open, data, body}, nil); len(r.writes) != 1 || !bytes.Equal(r.writes[0], want) {
		t.Fatalf("wrote %x, want %x in one piece", r.writes, want)
	}
}

func TestOpenAloneIsSentSoon(t *testing.T) {
	w, r := recordedWire()
	open := frame(typeWindow, flagSYN, 1, 0)
	put(t, w, open)
	<-w.owing // what watch waits for
	if err := w.flush(); err != nil || len(r.writes) != 1 || !bytes.Equal(r.writes[0], open) {
		t.Fatalf("wrote %x, %v, want %x", r.writes, err, open)
	}
	// And again, for the timer is used again.
	put(t, w, frame(typeWindow, flagSYN, 3, 0))
	<-w.owing
	if err := w.flush(); err != nil || len(r.writes) != 2 {
		t.Fatalf("wrote %x, %v", r.writes, err)
	}
}

// A reset that overtook the open of its stream would leave the stream open at the peer.
func TestResetDoesNotOvertakeTheOpen(t *testing.T) {
	w, r := recordedWire()
	put(t, w, frame(typeWindow, flagSYN, 1, 0))
	w.mu.Lock()
	err := w.reset(w.recs[1], nil)
	w.mu.Unlock()
	if err != nil || w.flush() != nil {
		t.Fatal(err)
	}
	want := append(frame(typeWindow, flagSYN, 1, 0), frame(typeWindow, flagRST, 1, 0)...)
	if len(r.writes) != 1 || !bytes.Equal(r.writes[0], want) {
		t.Fatalf("wrote %x, want %x", r.writes, want)
	}
}

// What is held back is bounded, and what ends a stream is not held back.
func TestOnlyOpensAndAcceptsWait(t *testing.T) {
	w, r := recordedWire()
	for i := range uint32(holdMost / headerSize) {
		put(t, w, frame(typeWindow, flagACK, 2*i+2, 0))
	}
	if len(r.writes) != 0 || len(w.held) != holdMost {
		t.Fatalf("%d writes, %d bytes held", len(r.writes), len(w.held))
	}
	put(t, w, frame(typeWindow, flagACK, 2, 0))
	if len(r.writes) != 1 || len(w.held) != 0 || len(r.writes[0]) != holdMost+headerSize {
		t.Fatalf("%d writes, %d bytes held", len(r.writes), len(w.held))
	}
	for i, flags := range []uint16{flagFIN, flagRST, flagACK | flagFIN} {
		put(t, w, frame(typeWindow, flags, 2, 0))
		if len(r.writes) != i+2 {
			t.Errorf("flags %d: the frame was held back", flags)
		}
	}
}
