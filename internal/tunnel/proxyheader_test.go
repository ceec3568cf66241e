package tunnel

import (
	"bytes"
	"container/list"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const (
	sigHex  = "0d0a0d0a000d0a515549540a"
	four    = "cb007107" + "0a000005" + "9d78" + "01bb"
	six     = "20010db8000000000000000000000007" + "20010db8000000000000000000000001" + "0001" + "ffff"
	mapped  = "00000000000000000000ffffcb007107" + "00000000000000000000ffff0a000005" + "9d78" + "01bb"
	crcTLV  = "030004" + "00000000"
	someTLV = "ea0005" + "0168656c6c"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The bytes are those of the specification of the PROXY protocol, version 2.
func TestProxyHeader(t *testing.T) {
	long := sigHex + "21110218" + four + strings.Repeat("00", 536-12) // 536 in all
	for _, c := range []struct {
		name, header string
		want         string // "": refused; "local": of the balancer itself
		says         string // in the refusal
	}{
		{"E2 TCP over IPv4", sigHex + "2111000c" + four, "203.0.113.7:40312", ""},
		{"E2 TCP over IPv6", sigHex + "21210024" + six, "[2001:db8::7]:1", ""},
		{"E2 extensions are skipped", sigHex + "2111001b" + four + crcTLV + someTLV, "203.0.113.7:40312", ""},
		{"E2 extensions over IPv6", sigHex + "2121002b" + six + crcTLV, "[2001:db8::7]:1", ""},
		{"E2 as long as may be", long, "203.0.113.7:40312", ""},
		{"E2 LOCAL", sigHex + "20000000", "local", ""},
		{"E2 LOCAL with addresses that do not count", sigHex + "2011000c" + four, "local", ""},
		{"E2 LOCAL with a family that does not count", sigHex + "20310003" + "010203", "local", ""},
		{"E6 mapped address", sigHex + "21210024" + mapped, "203.0.113.7:40312", ""},

		{"E2 UNSPEC", sigHex + "21000000", "", "family and transport 0x0"},
		{"E2 UNSPEC with addresses", sigHex + "2100000c" + four, "", "family and transport 0x0"},
		{"E2 family without transport", sigHex + "2110000c" + four, "", "0x10"},
		{"E2 UDP over IPv4", sigHex + "2112000c" + four, "", "0x12"},
		{"E2 UDP over IPv6", sigHex + "21220024" + six, "", "0x22"},
		{"E2 UNIX", sigHex + "213100d8" + strings.Repeat("00", 216), "", "0x31"},
		{"E2 unknown family", sigHex + "2141000c" + four, "", "0x41"},
		{"E2 addresses too short", sigHex + "2111000b" + four, "", "there must be 12"},
		{"E2 IPv6 with IPv4's length", sigHex + "2121000c" + four, "", "there must be 36"},
		{"E2 no addresses", sigHex + "21110000", "", "there must be 12"},
		{"E2 a byte too long", sigHex + "21110219" + four + strings.Repeat("00", 600), "", "at most 536"},
		{"E2 LOCAL too long", sigHex + "2000ffff" + strings.Repeat("00", 600), "", "at most 536"},
		{"E2 length of 64 KiB", sigHex + "2111ffff" + four, "", "at most 536"},
		{"E2 version 1 in binary", sigHex + "1111000c" + four, "", "version 1"},
		{"E2 version 3", sigHex + "3111000c" + four, "", "version 3"},
		{"E2 unknown command", sigHex + "2211000c" + four, "", "command 2"},
		{"E2 version 1, text", hex.EncodeToString([]byte("PROXY TCP4 203.0.113.7 10.0.0.5 40312 443\r\n")), "", "no PROXY header"},
		{"E2 ClientHello", "1603010200010001fc0303" + strings.Repeat("00", 100), "", "no PROXY header"},
		{"E2 signature with a slip", strings.Replace(sigHex, "5155", "5156", 1) + "2111000c" + four, "", "no PROXY header"},
		{"E2 source that nobody has", sigHex + "2111000c" + "00000000" + "0a000005" + "9d78" + "01bb", "", "0.0.0.0"},
		{"E2 source that is a group", sigHex + "2111000c" + "e0000001" + "0a000005" + "9d78" + "01bb", "", "224.0.0.1"},
		{"E6 mapped source that nobody has", sigHex + "21210024" + strings.Replace(mapped, "cb007107", "00000000", 1), "", "0.0.0.0"},
		{"E2 cut in the signature", sigHex[:10], "", "unexpected EOF"},
		{"E2 cut before the length", sigHex + "211100", "", "unexpected EOF"},
		{"E2 cut in the addresses", sigHex + "2111000c" + four[:10], "", "unexpected EOF"},
		{"E2 cut before the addresses", sigHex + "2111000c", "", "unexpected EOF"},
		{"E2 nothing", "", "", "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := unhex(t, c.header)
			const hello = "what comes behind it"
			behind := hello
			if c.want == "" {
				behind = ""
			}
			for how, r := range map[string]func(io.Reader) io.Reader{"at once": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
				in := bytes.NewBufferString(string(header) + behind)
				got, err := readProxyHeader(r(in), 536)
				switch {
				case c.want == "":
					if err == nil || got.IsValid() || !strings.Contains(err.Error(), c.says) {
						t.Fatalf("%s: %s, %v", how, got, err)
					}
					if in.Len() < len(header)-16 && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "nobody connects") {
						t.Errorf("%s: read %d bytes of a header that is refused by its first 16", how, len(header)-in.Len())
					}
				case err != nil || c.want == "local" && got.IsValid() || c.want != "local" && got.String() != c.want:
					t.Errorf("%s: %s, %v; want %s", how, got, err, c.want)
				case in.String() != hello:
					t.Errorf("%s: behind the header there is %q left", how, in)
				}
			}
		})
	}
}

// An end before the first byte is a health check's; one within a header is not.
func TestProxyHeaderThatDoesNotCome(t *testing.T) {
	for header, none := range map[string]bool{"": true, sigHex[:4]: false, sigHex + "2111000c": false, sigHex + "2111000c" + four[:4]: false} {
		_, err := readProxyHeader(bytes.NewReader(unhex(t, header)), 536)
		if err == nil || errors.Is(err, io.EOF) != none {
			t.Errorf("%q: %v", header, err)
		}
	}
}

// FuzzProxyHeader holds the parser to what it promises of any bytes: no panic, not a byte beyond the header, nothing but whole
// and usable addresses.
func FuzzProxyHeader(f *testing.F) {
	for _, s := range []string{"2111000c" + four, "21210024" + six, "21210024" + mapped, "2111001b" + four + crcTLV + someTLV, "20000000", "20310003010203", "21000000", "2111ffff", "2112000c" + four} {
		f.Add(unhex(f, sigHex+s))
	}
	f.Add([]byte("PROXY TCP4 203.0.113.7 10.0.0.5 40312 443\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		const most = 64
		in := bytes.NewReader(b)
		got, err := readProxyHeader(in, most)
		read := len(b) - in.Len()
		if read > 16+most {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			if got.IsValid() {
				t.Fatalf("%s with %v", got, err)
			}
			return
		}
		if !bytes.HasPrefix(b, []byte(proxySignature)) || read != 16+int(b[14])<<8+int(b[15]) {
			t.Fatalf("%d bytes were read of %x", read, b)
		}
		if local := b[12] == proxyLocal; local == got.IsValid() {
			t.Fatalf("command %#x gave %s", b[12], got)
		}
		if a := got.Addr(); got.IsValid() && (a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast()) {
			t.Fatalf("source %s", a)
		}
	})
}

func TestBalancersAreThoseOnTheList(t *testing.T) {
	at := func(list ...string) *Mux {
		m := &Mux{}
		for _, p := range list {
			m.cfg.ProxyProtocol = append(m.cfg.ProxyProtocol, netip.MustParsePrefix(p))
		}
		return m
	}
	for _, c := range []struct {
		name, peer string
		m          *Mux
		want       bool
	}{
		{"E2 on the list", "10.0.0.10:1", at("192.0.2.0/24", "10.0.0.10/32"), true},
		{"E2 not on the list", "10.0.0.11:1", at("192.0.2.0/24", "10.0.0.10/32"), false},
		{"E2 no list", "10.0.0.10:1", at(), false},
		{"E6 mapped", "[::ffff:10.0.0.10]:1", at("10.0.0.10/32"), true},
		{"E6 zone", "[fe80::1%eth0]:1", at("fe80::/64"), true},
		{"E6 IPv6", "[2001:db8::1]:1", at("2001:db8::/64"), true},
		{"E6 IPv6 is not IPv4", "[2001:db8::1]:1", at("10.0.0.0/8"), false},
		{"no address", "@", at("10.0.0.0/8"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.m.isBalancer(from{at: c.peer}); got != c.want {
				t.Errorf("%s: %v", c.peer, got)
			}
		})
	}
}

// from is a connection from somewhere.
type from struct {
	net.Conn
	at string
}

func (f from) RemoteAddr() net.Addr { return f }
func (f from) Network() string      { return "tcp" }
func (f from) String() string       { return f.at }

// What sets options of the socket, and what ends a direction, finds it below the coat.
func TestProxiedConnIsStillASocket(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	out, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p := &proxied{Conn: in, source: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.7:40312")), spent: 3 * time.Second}
	if tcp, ok := socket(&batchConn{Conn: p}); !ok || tcp != in {
		t.Error("the socket is not found")
	}
	if got := transportOf(&batchConn{Conn: p}); got != "tls" {
		t.Errorf("transport %q", got)
	}
	if got := sourceOf(p); got.String() != "203.0.113.7/32" {
		t.Errorf("it counts for %s", got)
	}
	if err := p.CloseWrite(); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(out); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	// Header and handshake share one time.
	g := gate{pending: list.New(), sources: map[netip.Prefix]*list.List{}}
	now := time.Now()
	for want, conn := range map[time.Duration]net.Conn{3 * time.Second: p, 0: in} {
		q := &pending{conn: conn, gate: &g, source: sourceOf(conn)}
		if q.enter(now); now.Sub(q.since) != want {
			t.Errorf("its time began %v before, want %v", now.Sub(q.since), want)
		}
	}
}
