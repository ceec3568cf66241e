package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// Ways to a relay, as relay.transport names them.
const (
	TransportAuto      = "auto"      // TCP, WebSocket where something on the way does not let it pass, QUIC where the relay has it
	TransportTCP       = "tcp"       // TLS on TCP
	TransportWebSocket = "websocket" // the same inside a WebSocket
	TransportQUIC      = "quic"      // QUIC on UDP
)

const (
	// DefaultRetest is how long a choice of WebSocket holds before a reconnect tries TCP first again, and the longest time
	// until QUIC is tried again beside TCP.
	DefaultRetest = 6 * time.Hour
	// DefaultQUICRetry is how long QUIC is left alone after it failed; twice as long after each failure more, up to Retest.
	DefaultQUICRetry = 10 * time.Minute
	// DefaultQUICTimeout is how long auto waits for QUIC before TCP has its turn.
	DefaultQUICTimeout = 4 * time.Second
)

// softSigns is how many cuts in a row make auto try WebSocket: one alone may be a relay that restarts.
const softSigns = 2

// busySigns is how many times in a row a relay may be busy before auto tries WebSocket: what says so need not be the relay, and
// one that is would only get more to do. With the waits between them these are some two and a half minutes.
const busySigns = 20

// quicProven is how long a tunnel over QUIC must have lived for earlier failures to count no more.
const quicProven = time.Hour

// A Choice is what was found to work: WebSocket, for TCP does not; QUIC; or TCP, for QUIC does not.
type Choice struct {
	Transport string    `json:"transport"`
	Since     time.Time `json:"since"`            // when it was found
	Reason    string    `json:"reason,omitempty"` // what the other way failed of
	// Of QUIC that fails: when it is tried again, and how often it failed in a row.
	Retry    time.Time `json:"retry,omitzero"`
	Failures int       `json:"failures,omitempty"`
}

// choices decides which way to go to each address, and remembers it across restarts. Safe for concurrent use.
type choices struct {
	setting string
	file    string // "" keeps nothing
	retest  time.Duration
	retry   time.Duration
	log     *slog.Logger

	mu    sync.Mutex // guards the fields below
	kept  map[string]Choice
	round map[string]*round
}

// round is one round of tries at an address: the way that comes first, then perhaps the other.
type round struct {
	first  string
	second bool   // it is the other's turn
	soft   int    // soft signs in a row
	busy   int    // times in a row that the relay was busy
	reason string // why the other is tried
	tcp    bool   // TCP comes first, whatever is remembered
	noQUIC string // why QUIC is left alone for a while, once TCP has worked
}

func newChoices(setting, file string, retest, retry time.Duration, log *slog.Logger) *choices {
	if setting == "" {
		setting = TransportAuto
	}
	if retest == 0 {
		retest = DefaultRetest
	}
	if retry == 0 {
		retry = DefaultQUICRetry
	}
	c := &choices{setting: setting, file: file, retest: retest, retry: retry, log: log, kept: map[string]Choice{}, round: map[string]*round{}}
	if setting == TransportAuto && file != "" {
		kept, err := ReadChoices(file)
		if err != nil {
			log.Warn("what was remembered of the ways to relays cannot be read; beginning anew", "file", file, "error", err)
		}
		for addr, k := range kept {
			c.kept[addr] = k
		}
	}
	return c
}

// maxChoices bounds the file of choices when it is read.
const maxChoices = 64 << 10

// ReadChoices reads what is remembered; a file that is not there holds nothing.
func ReadChoices(file string) (map[string]Choice, error) {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err == nil && info.Size() > maxChoices {
		err = errors.New("the file is too large")
	}
	if err != nil {
		return nil, fmt.Errorf("read choices: %w", err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read choices: %w", err)
	}
	var kept map[string]Choice
	if err := json.Unmarshal(b, &kept); err != nil {
		return nil, fmt.Errorf("decode choices: %w", err)
	}
	return kept, nil
}

func other(way string) string {
	if way == TransportTCP {
		return TransportWebSocket
	}
	return TransportTCP
}

// next is the way to try now. Where UDP cannot pass, as through a proxy, QUIC is none.
func (c *choices) next(addr string, udp bool) string {
	if c.setting != TransportAuto {
		return c.setting
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.round[addr]
	if r == nil {
		r = &round{}
		c.round[addr] = r
	}
	if r.second {
		return other(r.first)
	}
	r.first = TransportTCP
	switch k := c.kept[addr]; k.Transport {
	case TransportWebSocket:
		if age := time.Since(k.Since); age >= 0 && age < c.retest {
			r.first = TransportWebSocket
		}
	case TransportQUIC:
		if udp && !r.tcp {
			r.first = TransportQUIC
		}
	}
	return r.first
}

// failed notes a failure, and says whether the other way shall be tried at once.
func (c *choices) failed(addr, way string, err error) bool {
	if c.setting != TransportAuto {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.round[addr]
	if r == nil {
		return false
	}
	if way == TransportTCP {
		r.noQUIC = "" // TCP fails, too: it is the relay that is away, or the network
	}
	if r.second {
		r.second = false // both were tried
		return false
	}
	switch way {
	case TransportWebSocket:
		r.second, r.reason = true, "WebSocket fails"
		return true
	case TransportQUIC:
		var said *protocol.Error
		if errors.As(err, &said) { // the relay itself said no: it would say so over TCP
			return false
		}
		r.second, r.tcp, r.noQUIC = true, true, clip(err.Error(), 200) // a relay that is away, TCP finds out quicker
		return true
	}
	switch readSign(err) {
	case signNone:
		r.soft = 0
		return false
	case signSoft:
		if r.soft++; r.soft < softSigns {
			return false
		}
	case signBusy:
		if r.busy++; r.busy < busySigns {
			return false
		}
	case signHard:
	}
	r.soft, r.busy, r.second, r.reason = 0, 0, true, clip(err.Error(), 200)
	return true
}

// lost notes that a tunnel ended that had lived. One over QUIC that fell silent may be UDP that is stopped on the way: TCP
// comes first then.
func (c *choices) lost(addr, way string, lived time.Duration, err error) {
	if c.setting != TransportAuto || way != TransportQUIC {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.kept[addr]; lived >= quicProven && k.Transport == TransportQUIC {
		k.Failures = 0
		c.kept[addr] = k
	}
	if errors.Is(err, tunnel.ErrPeerLost) || errors.Is(err, tunnel.ErrWriteTimeout) || errors.Is(err, context.DeadlineExceeded) {
		c.round[addr] = &round{tcp: true, noQUIC: clip(err.Error(), 200)}
	}
}

// worked notes that a relay welcomed the agent on this way.
func (c *choices) worked(addr, way string) {
	if c.setting != TransportAuto {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.round[addr]
	if r == nil {
		r = &round{first: way}
	}
	delete(c.round, addr)
	had := c.kept[addr]
	switch {
	case way == TransportWebSocket && r.second:
		c.kept[addr] = Choice{Transport: way, Since: time.Now(), Reason: r.reason}
		c.log.Warn("TCP to the relay does not pass; using WebSocket, which is slower", "relay", addr, "reason", r.reason, "tcp_again_after", c.retest)
	case way == TransportQUIC && had.Transport != TransportQUIC:
		c.kept[addr] = Choice{Transport: way, Since: time.Now(), Failures: had.Failures}
		c.log.Info("QUIC to the relay passes; using it", "relay", addr)
	case way == TransportTCP && had.Transport == TransportWebSocket:
		delete(c.kept, addr)
		c.log.Info("TCP to the relay passes again; WebSocket is no longer used", "relay", addr)
	case way == TransportTCP && r.noQUIC != "":
		c.noQUIC(addr, r.noQUIC)
	default:
		return // nothing new
	}
	c.keep()
}

// stay notes that QUIC was tried beside TCP, and failed.
func (c *choices) stay(addr string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noQUIC(addr, clip(err.Error(), 200))
	c.keep()
}

// noQUIC leaves QUIC alone for a while. c.mu is held.
func (c *choices) noQUIC(addr, reason string) {
	k := Choice{Transport: TransportTCP, Since: time.Now(), Reason: reason, Failures: c.kept[addr].Failures + 1}
	wait := c.retest
	if n := k.Failures - 1; n < 20 {
		wait = min(wait, c.retry<<n)
	}
	k.Retry = k.Since.Add(wait)
	c.kept[addr] = k
	c.log.Info("QUIC to the relay does not pass; using TCP", "relay", addr, "reason", reason, "quic_again_after", wait)
}

// untilQUIC is how long QUIC to the address is to be left alone.
func (c *choices) untilQUIC(addr string) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kept[addr]
	if d := time.Until(k.Retry); k.Transport == TransportTCP && d > 0 && d <= c.retest { // more is a clock that was wrong
		return d
	}
	return 0
}

// keep saves the choices, as well as it can. c.mu is held.
func (c *choices) keep() {
	if err := c.save(); err != nil {
		c.log.Warn("the way to the relay could not be remembered", "error", err)
	}
}

// save writes the choices whole or not at all. c.mu is held.
func (c *choices) save() error {
	if c.file == "" {
		return nil
	}
	b, err := json.MarshalIndent(c.kept, "", "  ")
	if err != nil {
		return fmt.Errorf("encode choices: %w", err)
	}
	if err := config.ReplaceFile(c.file, append(b, '\n')); err != nil {
		return fmt.Errorf("save choices: %w", err)
	}
	return nil
}
