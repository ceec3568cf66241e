package tcp

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// question types of DNS.
const (
	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
	typeHTTPS = 65
)

// record is one answer.
type record struct {
	typ  uint16
	data []byte
}

func addrs(list ...string) (out []record) {
	for _, s := range list {
		a := netip.MustParseAddr(s)
		if a.Is4() {
			out = append(out, record{typeA, a.AsSlice()})
		} else {
			out = append(out, record{typeAAAA, a.AsSlice()})
		}
	}
	return out
}

func cname(target string) record {
	var b []byte
	for _, l := range strings.Split(target, ".") {
		b = append(append(b, byte(len(l))), l...)
	}
	return record{typeCNAME, append(b, 0)}
}

// dns is a name server under the test's control. answer gets the name without the final dot, the type, and how often
// that question was asked before; nil is "no such name". All times to live are 0.
type dns struct {
	resolver *net.Resolver
	answer   func(name string, typ uint16, asked int) []record

	mu    sync.Mutex
	asked map[string]int
	addr  string
}

func (d *dns) questions() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, k := range d.asked {
		n += k
	}
	return n
}

func newDNS(t *testing.T, answer func(name string, typ uint16, asked int) []record) *dns {
	t.Helper()
	d := &dns{answer: answer, asked: map[string]int{}}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d.addr = ln.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); pc.Close(); wg.Wait() })
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			msg := d.reply(buf[:n])
			if len(msg) > 1200 {
				msg = msg[:12:12] // too long for a datagram: come by TCP
				msg[2] |= 2
				binary.BigEndian.PutUint16(msg[6:], 0)
				msg = append(msg, buf[12:n]...)
				binary.BigEndian.PutUint16(msg[10:], binary.BigEndian.Uint16(buf[10:]))
			}
			_, _ = pc.WriteTo(msg, from)
		}
	})
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			var head [2]byte
			if _, err := io.ReadFull(c, head[:]); err == nil {
				q := make([]byte, binary.BigEndian.Uint16(head[:]))
				if _, err := io.ReadFull(c, q); err == nil {
					msg := d.reply(q)
					msg = msg[:min(len(msg), 65535)]
					_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(msg))), msg...))
				}
			}
			c.Close()
		}
	})
	d.resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var nd net.Dialer
		return nd.DialContext(ctx, network[:3], d.addr)
	}}
	return d
}

func (d *dns) reply(q []byte) []byte {
	if len(q) < 12 {
		return nil
	}
	end := 12
	var labels []string
	for end < len(q) && q[end] != 0 {
		n := int(q[end])
		labels = append(labels, string(q[end+1:end+1+n]))
		end += 1 + n
	}
	end += 5
	name, typ := strings.ToLower(strings.Join(labels, ".")), binary.BigEndian.Uint16(q[end-4:])
	key := name + "/" + string(rune(typ))
	d.mu.Lock()
	asked := d.asked[key]
	d.asked[key]++
	d.mu.Unlock()
	records := d.answer(name, typ, asked)
	out := append([]byte(nil), q[:end]...)
	out[2], out[3] = 0x84|q[2]&1, 0x80
	if records == nil {
		out[3] |= 3
	}
	binary.BigEndian.PutUint16(out[4:], 1)
	binary.BigEndian.PutUint16(out[6:], uint16(len(records)))
	binary.BigEndian.PutUint16(out[8:], 0)
	binary.BigEndian.PutUint16(out[10:], 0)
	for _, r := range records {
		out = append(out, 0xc0, 12)
		out = binary.BigEndian.AppendUint16(out, r.typ)
		out = append(out, 0, 1, 0, 0, 0, 0)
		out = binary.BigEndian.AppendUint16(out, uint16(len(r.data)))
		out = append(out, r.data...)
	}
	return out
}
