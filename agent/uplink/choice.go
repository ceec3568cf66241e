package uplink

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Ways to a relay, as relay.transport names them.
const (
	TransportAuto      = "auto"      // TCP, and WebSocket where something on the way does not let it pass
	TransportTCP       = "tcp"       // TLS on TCP
	TransportWebSocket = "websocket" // the same inside a WebSocket
)

// DefaultRetest is how long a choice of WebSocket holds before a reconnect tries TCP first again.
const DefaultRetest = 6 * time.Hour

// softSigns is how many cuts in a row make auto try WebSocket: one alone may be a relay that restarts.
const softSigns = 2

// A Choice is what was found to work where TCP does not.
type Choice struct {
	Transport string    `json:"transport"`
	Since     time.Time `json:"since"` // when TCP last failed
	Reason    string    `json:"reason"`
}

// choices decides which way to go to each address, and remembers it across restarts. Safe for concurrent use.
type choices struct {
	setting string
	file    string // "" keeps nothing
	retest  time.Duration
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
	reason string // why the other is tried
}

func newChoices(setting, file string, retest time.Duration, log *slog.Logger) *choices {
	if setting == "" {
		setting = TransportAuto
	}
	if retest == 0 {
		retest = DefaultRetest
	}
	c := &choices{setting: setting, file: file, retest: retest, log: log, kept: map[string]Choice{}, round: map[string]*round{}}
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

// next is the way to try now.
func (c *choices) next(addr string) string {
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
	if age := time.Since(c.kept[addr].Since); c.kept[addr].Transport == TransportWebSocket && age >= 0 && age < c.retest {
		r.first = TransportWebSocket
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
	if r == nil || r.second {
		if r != nil {
			r.second = false // both were tried
		}
		return false
	}
	if way == TransportWebSocket {
		r.second, r.reason = true, "WebSocket fails"
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
	case signHard:
	}
	r.soft, r.second, r.reason = 0, true, clip(err.Error(), 200)
	return true
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
	_, had := c.kept[addr]
	switch {
	case way == TransportWebSocket && r.second:
		c.kept[addr] = Choice{Transport: way, Since: time.Now(), Reason: r.reason}
		c.log.Warn("TCP to the relay does not pass; using WebSocket, which is slower", "relay", addr, "reason", r.reason, "tcp_again_after", c.retest)
	case way == TransportTCP && had:
		delete(c.kept, addr)
		c.log.Info("TCP to the relay passes again; WebSocket is no longer used", "relay", addr)
	default:
		delete(c.round, addr)
		return // nothing new
	}
	delete(c.round, addr)
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
	tmp, err := os.CreateTemp(filepath.Dir(c.file), ".uplink-*")
	if err != nil {
		return fmt.Errorf("save choices: %w", err)
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), c.file)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("save choices: %w", err)
	}
	return nil
}
