package uplink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

var quiet = slog.New(slog.DiscardHandler)

var (
	errBusyRelay = &net.OpError{Op: "remote error", Err: errors.New("tls: internal error")}
	errAlert     = fmt.Errorf("TLS handshake: %w", &net.OpError{Op: "remote error", Err: errors.New("tls: no application protocol")})
	// What a test can make on every system.
	errReset = fmt.Errorf("TLS handshake: %w", io.ErrUnexpectedEOF)
)

func TestSignsOfTheMiddle(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want sign
	}{
		"nothing":                   {nil, signNone},
		"refused":                   {outError{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}, signNone},
		"dial timed out":            {outError{context.DeadlineExceeded}, signNone},
		"proxy cut":                 {outError{io.ErrUnexpectedEOF}, signNone},
		"proxy of another CA":       {outError{fmt.Errorf("x: %w", mtls.ErrUntrusted)}, signNone},
		"clock":                     {fmt.Errorf("TLS handshake: %w", mtls.ErrValidity), signNone},
		"agent stops":               {context.Canceled, signNone},
		"the relay says no":         {fmt.Errorf("say hello: %w", protocol.Errorf(protocol.CodeDenied, "no")), signNone},
		"the relay is full":         {&retryError{protocol.Errorf(protocol.CodeUnavailable, "later"), time.Second}, signNone},
		"intercepted":               {fmt.Errorf("TLS handshake: %w: it names issuer", mtls.ErrUntrusted), signHard},
		"alert":                     {errAlert, signHard},
		"no TLS":                    {fmt.Errorf("TLS handshake: %w", tls.RecordHeaderError{}), signHard},
		"TLS 1.2":                   {fmt.Errorf("TLS handshake: %w", errors.New("tls: protocol version not supported")), signHard},
		"no ALPN":                   {fmt.Errorf("%w: negotiated TLS 1.3 with ALPN \"\"", tunnel.ErrProtocol), signHard},
		"busy":                      {fmt.Errorf("TLS handshake: %w", errBusyRelay), signBusy},
		"busy, at hello":            {helloError{errors.New("say hello"), fmt.Errorf("%w: %w", tunnel.ErrPeerClosed, errBusyRelay)}, signNone},
		"reset":                     {errReset, signSoft},
		"write timed out":           {fmt.Errorf("TLS handshake: %w", os.ErrDeadlineExceeded), signSoft},
		"closed":                    {fmt.Errorf("TLS handshake: %w", io.EOF), signSoft},
		"silence":                   {fmt.Errorf("TLS handshake: %w", context.DeadlineExceeded), signSoft},
		"cut at hello":              {helloError{errors.New("say hello"), fmt.Errorf("%w: EOF", tunnel.ErrPeerClosed)}, signSoft},
		"certificate refused":       {helloError{errors.New("say hello"), fmt.Errorf("%w: %w", tunnel.ErrPeerClosed, errAlert)}, signNone},
		"hello not understood":      {helloError{errors.New("decode"), nil}, signNone},
		"tunnel lives, answer late": {helloError{context.DeadlineExceeded, nil}, signNone},
	} {
		if got := readSign(c.err); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// steps plays rounds: "tcp reset" means that the way must be tcp, and fails so; "websocket ok" that it works.
func steps(t *testing.T, c *choices, list ...string) {
	t.Helper()
	for i, s := range list {
		way, what, _ := strings.Cut(s, " ")
		if what == "found" { // beside TCP
			c.worked("r:1", way)
			continue
		}
		if got := c.next("r:1", true); got != way {
			t.Fatalf("step %d (%s): the way is %s", i+1, s, got)
		}
		what, at := strings.CutSuffix(what, " now")
		if what == "ok" {
			c.worked("r:1", way)
			continue
		}
		if what == "silent" || what == "ends" {
			c.worked("r:1", way)
			c.lost("r:1", way, time.Minute, map[string]error{"silent": fmt.Errorf("tunnel lost: %w", tunnel.ErrPeerLost), "ends": tunnel.ErrPeerClosed}[what])
			continue
		}
		err := map[string]error{"busy": errBusyRelay, "alert": errAlert, "reset": errReset, "refused": outError{syscall.ECONNREFUSED}, "fails": errors.New("x"), "denied": fmt.Errorf("say hello: %w", protocol.Errorf(protocol.CodeDenied, "no"))}[what]
		if got := c.failed("r:1", way, err); got != at {
			t.Fatalf("step %d (%s): at once %v", i+1, s, got)
		}
	}
}

func TestAutoChoosesAndRemembers(t *testing.T) {
	for name, list := range map[string][]string{
		"nothing in the way":              {"tcp ok", "tcp ok"},
		"a port that is closed":           {"tcp refused", "tcp refused", "tcp refused", "tcp ok"},
		"a strange certificate":           {"tcp alert now", "websocket ok", "websocket ok"},
		"one cut is a restart":            {"tcp reset", "tcp ok", "tcp reset", "tcp ok"},
		"cuts with silence between":       {"tcp reset", "tcp refused", "tcp reset", "tcp refused"},
		"a busy relay":                    {"tcp busy", "tcp busy", "tcp busy", "tcp busy", "tcp ok", "tcp reset", "tcp ok"},
		"busy for ever is something else": append(slices.Repeat([]string{"tcp busy"}, 19), "tcp busy now", "websocket ok"),
		"two cuts in a row":               {"tcp reset", "tcp reset now", "websocket ok", "websocket ok"},
		"both fail, each round anew":      {"tcp alert now", "websocket fails", "tcp alert now", "websocket fails", "tcp ok"},
		"the remembered way fails":        {"tcp alert now", "websocket ok", "websocket fails now", "tcp ok", "tcp ok"},
		"a relay that is away":            {"tcp alert now", "websocket ok", "websocket refused now", "tcp refused", "websocket refused now", "tcp refused", "websocket ok"},
		"a word of the relay is no sign":  {"tcp fails", "tcp fails", "tcp fails"},
		"back in the middle's own office": {"tcp alert now", "websocket ok", "websocket fails now", "tcp alert", "websocket ok"},
	} {
		t.Run(name, func(t *testing.T) { steps(t, newChoices("", "", 0, 0, quiet), list...) })
	}
}

func TestAutoRemembersQUIC(t *testing.T) {
	for name, list := range map[string][]string{
		"found, and kept":                 {"tcp ok", "quic found", "quic ok", "quic ok"},
		"fails, and TCP does not":         {"tcp ok", "quic found", "quic fails now", "tcp ok", "tcp ok"},
		"a relay that is away":            {"tcp ok", "quic found", "quic fails now", "tcp refused", "tcp refused", "tcp ok", "quic ok"},
		"a relay that goes with a word":   {"tcp ok", "quic found", "quic ends", "quic ok"},
		"falls silent":                    {"tcp ok", "quic found", "quic silent", "tcp ok", "tcp ok"},
		"a network that is away":          {"tcp ok", "quic found", "quic silent", "tcp refused", "tcp reset", "tcp ok", "quic ok"},
		"TCP is stopped afterwards":       {"tcp ok", "quic found", "quic fails now", "tcp alert", "tcp alert now", "websocket ok", "websocket ok"},
		"the relay itself says no":        {"tcp ok", "quic found", "quic denied", "quic denied", "quic ok"},
		"a WebSocket, and nothing beside": {"tcp alert now", "websocket ok", "websocket ok"},
	} {
		t.Run(name, func(t *testing.T) { steps(t, newChoices("", "", 0, 0, quiet), list...) })
	}
	// What was found where UDP passes does not lead through a proxy.
	c := newChoices("", "", 0, 0, quiet)
	steps(t, c, "quic found", "quic ok")
	if way := c.next("r:1", false); way != TransportTCP {
		t.Errorf("with a proxy the way is %s", way)
	}
}

// QUIC that fails is left alone, longer each time, and tried again; a day of it does not end in never.
func TestQUICIsTestedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "uplink.json")
		c := newChoices("", file, 6*time.Hour, 10*time.Minute, quiet)
		if d := c.untilQUIC("r:1"); d != 0 {
			t.Errorf("first try in %v", d)
		}
		for _, want := range []time.Duration{10, 20, 40, 80, 160, 320, 360, 360} {
			c.stay("r:1", errors.New("nothing comes back over UDP"))
			if d := c.untilQUIC("r:1"); d != want*time.Minute {
				t.Errorf("again in %v, want %d min", d, want)
			}
			c = newChoices("", file, 6*time.Hour, 10*time.Minute, quiet) // it survives a restart
			time.Sleep(want * time.Minute)
			if d := c.untilQUIC("r:1"); d != 0 {
				t.Errorf("still %v to wait", d)
			}
		}
		// It works, but not for long: that is no reason to begin anew.
		steps(t, c, "quic found", "quic silent", "tcp ok")
		if d := c.untilQUIC("r:1"); d != 6*time.Hour {
			t.Errorf("again in %v", d)
		}
		time.Sleep(6 * time.Hour)
		steps(t, c, "quic found")
		c.next("r:1", true)
		c.lost("r:1", TransportQUIC, 2*time.Hour, tunnel.ErrPeerLost)
		steps(t, c, "tcp ok")
		if d := c.untilQUIC("r:1"); d != 10*time.Minute {
			t.Errorf("again in %v after a tunnel that lived", d)
		}
		// A clock that was wrong does not put it off for a year.
		k := c.kept["r:1"]
		k.Retry = time.Now().Add(365 * 24 * time.Hour)
		c.kept["r:1"] = k
		if d := c.untilQUIC("r:1"); d != 0 {
			t.Errorf("again in %v", d)
		}
	})
}

func TestChoiceIsTestedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "uplink.json")
		c := newChoices(TransportAuto, file, time.Hour, 0, quiet)
		steps(t, c, "tcp alert now", "websocket ok")
		time.Sleep(50 * time.Minute)
		steps(t, c, "websocket ok") // which is no test of TCP
		time.Sleep(11 * time.Minute)
		steps(t, c, "tcp alert now", "websocket ok", "websocket ok")
		// It survives a restart, and so does its age.
		time.Sleep(30 * time.Minute)
		c = newChoices(TransportAuto, file, time.Hour, 0, quiet)
		steps(t, c, "websocket ok")
		time.Sleep(31 * time.Minute)
		c = newChoices(TransportAuto, file, time.Hour, 0, quiet)
		steps(t, c, "tcp ok", "tcp ok")
		if kept, err := ReadChoices(file); err != nil || len(kept) != 0 {
			t.Errorf("kept %v, %v", kept, err)
		}
	})
}

func TestChoicesInAFileThatIsOff(t *testing.T) {
	for name, text := range map[string]string{
		"torn":        `{"r:1": {"transp`,
		"future":      fmt.Sprintf(`{"r:1": {"transport": "websocket", "since": %q}}`, time.Now().Add(24*time.Hour).Format(time.RFC3339)),
		"other way":   fmt.Sprintf(`{"r:1": {"transport": "carrier pigeon", "since": %q}}`, time.Now().Format(time.RFC3339)),
		"too large":   `{"r:1": {"reason": "` + strings.Repeat("a", maxChoices) + `"}}`,
		"other relay": fmt.Sprintf(`{"r:2": {"transport": "websocket", "since": %q}}`, time.Now().Format(time.RFC3339)),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "uplink.json")
			must(t, os.WriteFile(file, []byte(text), 0o600))
			steps(t, newChoices(TransportAuto, file, 0, 0, quiet), "tcp ok")
		})
	}
	// A folder that cannot be written costs the memory alone.
	c := newChoices(TransportAuto, filepath.Join(t.TempDir(), "none", "uplink.json"), 0, 0, quiet)
	steps(t, c, "tcp alert now", "websocket ok", "websocket ok")
}

func TestOneWayAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "uplink.json")
	for _, way := range []string{TransportTCP, TransportWebSocket, TransportQUIC} {
		steps(t, newChoices(way, file, 0, 0, quiet), way+" alert", way+" reset", way+" reset", way+" ok", way+" alert")
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("something is remembered: %v", err)
	}
}

func TestExplanations(t *testing.T) {
	for want, err := range map[string]error{
		"a load balancer, proxy or firewall ends TLS": errAlert,
		"speaks plain HTTP":                           tls.RecordHeaderError{Msg: "x", RecordHeader: [5]byte{'H', 'T', 'T', 'P', '/'}},
		"does not speak TLS":                          tls.RecordHeaderError{Msg: "x", RecordHeader: [5]byte{'S', 'S', 'H', '-', '2'}},
		"tunnel closed":                               nil,
	} {
		if got := explain(err); !strings.Contains(got, want) {
			t.Errorf("%v is explained as %q, want %q", err, got, want)
		}
	}
}
