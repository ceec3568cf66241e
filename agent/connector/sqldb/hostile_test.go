package sqldb

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

// rogue is a server that does what serve says with each connection, and keeps every byte that came.
type rogue struct {
	addr  *net.TCPAddr
	mu    sync.Mutex
	got   bytes.Buffer
	conns []net.Conn
}

func newRogue(t *testing.T, serve func(c net.Conn)) *rogue {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{addr: ln.Addr().(*net.TCPAddr)}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, c)
			r.mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				serve(&spy{c, r})
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		r.mu.Lock()
		for _, c := range r.conns {
			_ = c.Close()
		}
		r.mu.Unlock()
		wg.Wait()
	})
	return r
}

type spy struct {
	net.Conn
	r *rogue
}

func (s *spy) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	s.r.mu.Lock()
	s.r.got.Write(p[:n])
	s.r.mu.Unlock()
	return n, err
}

func (r *rogue) saw(what string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Contains(r.got.String(), what)
}

// said is how many bytes it was sent.
func (r *rogue) said() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got.Len()
}

func (r *rogue) profile(adapter, tls string) Config {
	return Config{Adapter: adapter, Host: "127.0.0.1", Port: r.addr.Port, Database: "d", Username: "u", Password: secret.FromString("s3cret-canary"), TLS: tls,
		ConnTimeout: 3 * time.Second, Timeout: 5 * time.Second}
}

// pgMsg frames one backend message.
func pgMsg(typ byte, body ...byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4)), body...)
}

// pgStartup reads the startup message; an SSLRequest is answered with no.
func pgStartup(c net.Conn) bool {
	for {
		var h [4]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			return false
		}
		body := make([]byte, binary.BigEndian.Uint32(h[:])-4)
		if _, err := io.ReadFull(c, body); err != nil {
			return false
		}
		if binary.BigEndian.Uint32(body) != 80877103 {
			return true
		}
		if _, err := c.Write([]byte("N")); err != nil {
			return false
		}
	}
}

// A25: the server's certificate is checked; A26: no plaintext where TLS is wanted; A27: no password to who only asks.
func TestPasswordIsNotGivenAway(t *testing.T) {
	t.Run("A26 postgresql answers N to SSLRequest", func(t *testing.T) {
		r := newRogue(t, func(c net.Conn) { pgStartup(c) })
		if a := query(t, open(t, r.profile(PostgreSQL, "")), "select 1"); a.code() != protocol.CodeUnavailable {
			t.Errorf("%+v", a.Err)
		}
		if r.saw("user\x00u") || r.saw("canary") {
			t.Error("something was said in the clear")
		}
	})
	for name, ask := range map[string][]byte{"cleartext": pgMsg('R', 0, 0, 0, 3), "md5": pgMsg('R', 0, 0, 0, 5, 1, 2, 3, 4)} {
		t.Run("A27 postgresql asks for "+name, func(t *testing.T) {
			r := newRogue(t, func(c net.Conn) {
				if pgStartup(c) {
					_, _ = c.Write(ask)
					_, _ = io.Copy(io.Discard, c)
				}
			})
			if a := query(t, open(t, r.profile(PostgreSQL, TLSDisable)), "select 1"); a.code() != protocol.CodeUnavailable {
				t.Errorf("%+v", a.Err)
			}
			if r.saw("p\x00\x00\x00") || r.saw("canary") {
				t.Error("a password message was sent")
			}
		})
	}
	t.Run("A26 mysql clears CLIENT_SSL", func(t *testing.T) {
		r := newRogue(t, func(c net.Conn) {
			_, _ = c.Write(myGreeting("mysql_native_password", false))
			_, _ = io.Copy(io.Discard, c)
		})
		if a := query(t, open(t, r.profile(MySQL, "")), "select 1"); a.code() != protocol.CodeUnavailable {
			t.Errorf("%+v", a.Err)
		}
		if r.said() > 0 {
			t.Error("something was said in the clear")
		}
	})
	for _, plugin := range []string{"mysql_clear_password", "mysql_old_password", "sha256_password"} {
		t.Run("A27 mysql asks by "+plugin, func(t *testing.T) {
			r := newRogue(t, func(c net.Conn) {
				_, _ = c.Write(myGreeting(plugin, false))
				p, _ := myRead(c)
				if p != nil { // the driver tries its default method: switch it back
					_, _ = c.Write(myPacket(p[3]+1, append(append([]byte{0xfe}, plugin+"\x00"...), bytes.Repeat([]byte{'a'}, 20)...)))
				}
				_, _ = io.Copy(io.Discard, c)
			})
			if a := query(t, open(t, r.profile(MySQL, TLSDisable)), "select 1"); a.code() != protocol.CodeUnavailable {
				t.Errorf("%+v", a.Err)
			}
			if r.saw("canary") {
				t.Error("the password was sent")
			}
		})
	}
	t.Run("A27 mysql offers its own RSA key", func(t *testing.T) {
		r := newRogue(t, func(c net.Conn) {
			_, _ = c.Write(myGreeting("caching_sha2_password", false))
			if p, _ := myRead(c); p != nil {
				_, _ = c.Write(myPacket(p[3]+1, []byte{1, 4})) // perform full authentication
				if p, _ := myRead(c); p != nil {
					t.Errorf("the client asked for a key: %x", p)
				}
			}
		})
		if a := query(t, open(t, r.profile(MySQL, TLSDisable)), "select 1"); a.code() != protocol.CodeUnavailable {
			t.Errorf("%+v", a.Err)
		}
	})
	t.Run("A25 unknown CA and wrong name", func(t *testing.T) {
		pg, my := pgServer(t), myServer(t)
		for name, cfg := range map[string]Config{"postgresql": pgProfile(pg, "reader", "r"), "mariadb": myProfile(my, "reader", "r")} {
			unknown := cfg
			unknown.CAFile = ""
			if a := query(t, open(t, unknown), "select 1"); a.code() != protocol.CodeUnavailable {
				t.Errorf("%s with the system's roots: %+v", name, a.Err)
			}
			wrong := cfg
			wrong.Host = "db.wrong.example"
			addr := net.JoinHostPort(cfg.Host, strconv.Itoa(cfg.Port))
			wrong.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) { return dial(ctx, network, addr) }
			if a := query(t, open(t, wrong), "select 1"); a.code() != protocol.CodeUnavailable {
				t.Errorf("%s with another name: %+v", name, a.Err)
			}
			wrong.TLS = TLSVerifyCA
			if a := query(t, open(t, wrong), "select 1"); a.Err != nil {
				t.Errorf("%s verify-ca: %+v", name, a.Err)
			}
			wrong.CAFile = ""
			if a := query(t, open(t, wrong), "select 1"); a.code() != protocol.CodeUnavailable {
				t.Errorf("%s verify-ca with the system's roots: %+v", name, a.Err)
			}
			plain := cfg
			plain.TLS, plain.CAFile = TLSDisable, ""
			if a := query(t, open(t, plain), "select 1"); a.Err != nil {
				t.Errorf("%s without TLS, said so: %+v", name, a.Err)
			}
		}
	})
}

func myPacket(seq byte, body []byte) []byte {
	n := len(body)
	return append([]byte{byte(n), byte(n >> 8), byte(n >> 16), seq}, body...)
}

func myRead(c net.Conn) ([]byte, error) {
	h := make([]byte, 4)
	if _, err := io.ReadFull(c, h); err != nil {
		return nil, err
	}
	body := make([]byte, int(h[0])|int(h[1])<<8|int(h[2])<<16)
	_, err := io.ReadFull(c, body)
	return append(h, body...), err
}

func myGreeting(plugin string, ssl bool) []byte {
	flags := uint32(0x000fa28d | 1<<19 | 1<<7) // protocol 4.1, plugin auth, LOCAL FILES
	if ssl {
		flags |= 1 << 11
	} else {
		flags &^= 1 << 11
	}
	b := append([]byte{10}, "8.0.36\x00\x01\x00\x00\x00aaaaaaaa\x00"...)
	b = append(b, byte(flags), byte(flags>>8), 45, 2, 0, byte(flags>>16), byte(flags>>24), 21)
	b = append(b, make([]byte, 10)...)
	b = append(b, "bbbbbbbbbbbb\x00"...)
	return myPacket(0, append(append(b, plugin...), 0))
}

// C16: a rogue MySQL server answers any statement with a request for a local file.
func TestRogueMySQLServerGetsNoFile(t *testing.T) {
	r := newRogue(t, func(c net.Conn) {
		_, _ = c.Write(myGreeting("mysql_native_password", false))
		if p, _ := myRead(c); p == nil {
			return
		}
		_, _ = c.Write(myPacket(2, []byte{0, 0, 0, 2, 0, 0, 0}))
		for {
			p, err := myRead(c)
			if err != nil {
				return
			}
			_, _ = c.Write(myPacket(p[3]+1, append([]byte{0xfb}, "/etc/passwd"...)))
		}
	})
	if a := query(t, open(t, r.profile(MySQL, TLSDisable)), "select 1"); a.Err == nil {
		t.Error("it ran")
	}
	if r.saw("root:") {
		t.Error("C16: the file was sent")
	}
}

// C17: servers that lie in every frame. Nothing may panic, hang or grow.
func TestLyingServers(t *testing.T) {
	flood := bytes.Repeat([]byte{0x41}, 1<<16)
	signedIn := append(append(pgMsg('R', 0, 0, 0, 0), pgMsg('K', 0, 0, 0, 1, 0, 0, 0, 2)...), pgMsg('Z', 'I')...)
	forever := func(c net.Conn, b []byte) {
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}
	for name, answer := range map[string]func(net.Conn){
		"negative length":     func(c net.Conn) { _, _ = c.Write([]byte{'T', 0xff, 0xff, 0xff, 0xff}) },
		"4 GiB row":           func(c net.Conn) { _, _ = c.Write([]byte{'D', 0x7f, 0xff, 0xff, 0xff}); forever(c, flood) },
		"endless errors":      func(c net.Conn) { forever(c, pgMsg('E', append([]byte("SERROR\x00C00000\x00Mx\x00"), 0)...)) },
		"endless notices":     func(c net.Conn) { forever(c, pgMsg('N', append([]byte("SNOTICE\x00Mx\x00"), 0)...)) },
		"short data row":      func(c net.Conn) { forever(c, pgMsg('D', 0)) },
		"row of absurd width": func(c net.Conn) { forever(c, pgMsg('D', 0xff, 0xff, 0, 0, 0, 9)) },
		"garbage":             func(c net.Conn) { forever(c, flood) },
		"ready without end":   func(c net.Conn) { forever(c, pgMsg('Z', 'I')) },
		"a byte at a time":    func(c net.Conn) { _, _ = c.Write([]byte{'T'}); _, _ = io.Copy(io.Discard, c) },
		"cut":                 func(c net.Conn) {},
	} {
		t.Run("C17 postgresql "+name, func(t *testing.T) {
			t.Parallel()
			r := newRogue(t, func(c net.Conn) {
				if pgStartup(c) {
					_, _ = c.Write(signedIn)
					var b [1]byte
					if _, err := c.Read(b[:]); err == nil {
						answer(c)
					}
				}
			})
			begin := time.Now()
			if a := query(t, open(t, r.profile(PostgreSQL, TLSDisable)), "select 1"); a.Err == nil {
				t.Errorf("%+v", a)
			}
			if d := time.Since(begin); d > 20*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
	ok := myPacket(2, []byte{0, 0, 0, 2, 0, 0, 0})
	for name, c := range map[string]struct {
		greet  []byte
		answer func(net.Conn, byte)
	}{
		"empty greeting": {myPacket(0, []byte{10}), nil},
		"cut greeting":   {myGreeting("mysql_native_password", false)[:30], nil},
		"short greeting": {myPacket(0, append([]byte{10}, "8\x00\x01\x00"...)), nil},
		"columns by billion": {myGreeting("mysql_native_password", false), func(c net.Conn, s byte) {
			_, _ = c.Write(myPacket(s, []byte{0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}))
		}},
		"short column": {myGreeting("mysql_native_password", false), func(c net.Conn, s byte) {
			_, _ = c.Write(append(myPacket(s, []byte{1}), myPacket(s+1, []byte{3, 'd'})...))
		}},
		"garbage": {myGreeting("mysql_native_password", false), func(c net.Conn, s byte) { forever(c, flood) }},
		"endless packet": {myGreeting("mysql_native_password", false), func(c net.Conn, s byte) {
			for ; ; s++ {
				if _, err := c.Write(append([]byte{0xff, 0xff, 0xff, s}, bytes.Repeat([]byte{1}, 1<<24-1)...)); err != nil {
					return
				}
			}
		}},
	} {
		t.Run("C17 mysql "+name, func(t *testing.T) {
			t.Parallel()
			r := newRogue(t, func(conn net.Conn) {
				_, _ = conn.Write(c.greet)
				if p, _ := myRead(conn); p == nil || c.answer == nil {
					return
				}
				_, _ = conn.Write(ok)
				if p, _ := myRead(conn); p != nil {
					c.answer(conn, p[3]+1)
				}
			})
			if a := query(t, open(t, r.profile(MySQL, TLSDisable)), "select 1"); a.Err == nil {
				t.Errorf("%+v", a)
			}
		})
	}
	for _, adapter := range []string{SQLServer, Oracle} {
		for name, answer := range map[string]func(net.Conn){"garbage": func(c net.Conn) { _, _ = c.Write(flood) }, "silence": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "cut": func(net.Conn) {}} {
			t.Run("C17 "+adapter+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newRogue(t, func(c net.Conn) {
					var b [1]byte
					if _, err := c.Read(b[:]); err == nil {
						answer(c)
					}
				})
				sql := map[string]string{SQLServer: "select 1", Oracle: "select 1 from dual"}[adapter]
				if a := query(t, open(t, r.profile(adapter, TLSDisable)), sql); a.code() != protocol.CodeUnavailable && a.code() != protocol.CodeUpstream {
					t.Errorf("%+v", a.Err)
				}
				if r.saw("canary") || r.saw("c\x00a\x00n\x00a\x00r\x00y") {
					t.Error("the password was sent")
				}
			})
		}
	}
}
