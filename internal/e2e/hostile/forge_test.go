//go:build linux

package hostile_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Frames of yamux as tunnels carry them.
const (
	frameData, frameWindow, framePing, frameGoAway = 0, 1, 2, 3
	syn, ack, fin, rst                             = 1, 2, 4, 8
)

func frame(typ byte, flags uint16, id, length uint32, body ...byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte{0, typ}, flags)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, length)
	return append(b, body...)
}

// brokenFrames are what no honest peer sends; first is the number of the first stream that the sender may open.
func brokenFrames(first uint32) map[string][]byte {
	open := frame(frameWindow, syn, first, 0)
	join := func(f ...[]byte) []byte { return bytes.Join(f, nil) }
	return map[string][]byte{
		"version":              {9, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0},
		"type unknown":         frame(7, 0, first, 0),
		"length 2^32-1":        join(open, frame(frameData, 0, first, 1<<32-1)),
		"length of the SYN":    frame(frameData, syn, first, 1<<32-1),
		"stream 0":             frame(frameData, syn, 0, 1, 1),
		"wrong parity":         frame(frameWindow, syn, first+1, 0),
		"stream opened twice":  join(open, open),
		"ended twice":          join(open, frame(frameWindow, fin, first, 0), frame(frameWindow, fin, first, 0)),
		"go away, unknown why": frame(frameGoAway, 0, 0, 77),
		"rubbish":              bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 100),
	}
}

// ended asserts that the other side ends a conn in time, and gives what it said before.
func ended(t testing.TB, c net.Conn, limit time.Duration) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(limit))
	b, err := io.ReadAll(io.LimitReader(c, 64<<20))
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		t.Errorf("the conn stands after %s", limit)
	}
	return b
}

// forger holds the sending keys of a TLS 1.3 conn, so that it can send records that crypto/tls never would.
type forger struct {
	net.Conn
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// forge does a handshake as conf says and takes over the sending side.
func forge(t testing.TB, addr string, conf *tls.Config) *forger {
	t.Helper()
	var keys bytes.Buffer
	conf = conf.Clone()
	conf.KeyLogWriter = &keys
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, conf)
	if err != nil {
		t.Fatal(err)
	}
	raw := c.NetConn()
	t.Cleanup(func() { reset(raw) })
	if s := c.ConnectionState().CipherSuite; s != tls.TLS_AES_128_GCM_SHA256 {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this machine prefers %s, and records can be forged for AES-128 alone", tls.CipherSuiteName(s))
		}
		t.Skipf("SKIPPED, NOT TESTED: this machine prefers %s", tls.CipherSuiteName(s))
	}
	f := &forger{Conn: raw}
	for line := range strings.Lines(keys.String()) {
		if p := strings.Fields(line); len(p) == 3 && p[0] == "CLIENT_TRAFFIC_SECRET_0" {
			f.secret, err = hex.DecodeString(p[2])
		}
	}
	if err != nil || f.secret == nil {
		t.Fatalf("no secret: %v", err)
	}
	f.rekey(t)
	return f
}

// label is HKDF-Expand-Label of RFC 8446.
func label(t testing.TB, secret []byte, name string, n int) []byte {
	t.Helper()
	name = "tls13 " + name
	info := append(binary.BigEndian.AppendUint16(nil, uint16(n)), byte(len(name)))
	b, err := hkdf.Expand(sha256.New, secret, string(info)+name+"\x00", n)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (f *forger) rekey(t testing.TB) {
	t.Helper()
	block, err := aes.NewCipher(label(t, f.secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	if f.aead, err = cipher.NewGCM(block); err != nil {
		t.Fatal(err)
	}
	f.iv, f.seq = label(t, f.secret, "iv", 12), 0
}

// record seals one record whose inner type is kind: 22 is handshake, 23 data.
func (f *forger) record(kind byte, inner []byte) []byte {
	inner = append(bytes.Clone(inner), kind)
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(inner)+f.aead.Overhead()))
	nonce := bytes.Clone(f.iv)
	for i := range 8 {
		nonce[4+i] ^= byte(f.seq >> (56 - 8*i))
	}
	f.seq++
	return f.aead.Seal(head, nonce, inner, head)
}

// keyUpdate is the message that changes the sender's keys; asks wants the other's changed, too.
func keyUpdate(asks byte) []byte { return []byte{24, 0, 0, 1, asks} }

// pour sends what next gives until the other side ends the conn or the time is over, and says how often.
func pour(c net.Conn, d time.Duration, next func(n int) []byte) (n int, err error) {
	stop := time.Now().Add(d)
	_ = c.SetWriteDeadline(stop)
	for ; time.Now().Before(stop); n++ {
		if _, err = c.Write(next(n)); err != nil {
			return n, err
		}
	}
	return n, fmt.Errorf("%d were taken", n)
}
