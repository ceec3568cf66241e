package main

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/agent"
	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/cli"
)

// statusCommand reads files alone: the agent listens on nothing, so there is nobody to ask. It takes no lock and changes
// nothing, and the agent may run meanwhile.
type statusCommand struct {
	cli.Output
	Data string `required:"" type:"existingdir" placeholder:"DIR" help:"Folder that enroll filled."`
}

func (*statusCommand) Examples() []string {
	return []string{"fairlead-agent status --data /var/lib/fairlead-agent", "fairlead-agent status --data /var/lib/fairlead-agent --output json"}
}

// standing is what status prints.
type standing struct {
	State        string    `json:"state"` // enrolled, expired, not_yet_valid, not_enrolled
	Agent        string    `json:"agent,omitempty"`
	Group        string    `json:"group,omitempty"`
	Workspace    string    `json:"workspace,omitempty"`
	Installation string    `json:"installation,omitempty"`
	Relays       []string  `json:"relay_addresses,omitempty"`
	NotBefore    time.Time `json:"not_before,omitzero"`
	NotAfter     time.Time `json:"not_after,omitzero"`
	Serial       string    `json:"serial,omitempty"`
	Record       record    `json:"record"`
	// WebSocket holds the addresses to which TCP did not pass, with what was found there.
	WebSocket map[string]uplink.Choice `json:"websocket,omitempty"`
	// QUIC holds the addresses to which QUIC was tried: transport quic where it passes, tcp where it did not.
	QUIC map[string]uplink.Choice `json:"quic,omitempty"`
}

// record is how the agent's own record stands.
type record struct {
	Bytes    int64     `json:"bytes"`
	Oldest   uint64    `json:"oldest,omitempty"`
	Last     uint64    `json:"last,omitempty"`
	LastHash string    `json:"last_hash,omitempty"`
	LastTime time.Time `json:"last_time,omitzero"`
	Sent     uint64    `json:"sent"` // the relay acknowledged up to here
	Waiting  uint64    `json:"waiting"`
}

func (c *statusCommand) Run(t *cli.Term) error {
	s, err := look(c.Data, time.Now())
	if err != nil {
		return err
	}
	if c.JSON() {
		err = t.JSON(s)
	} else {
		s.print(t, c.Data)
	}
	if err == nil && s.State != "enrolled" {
		err = &cli.ExitError{Status: cli.ExitConfig}
	}
	return err
}

func look(dir string, now time.Time) (standing, error) {
	s := standing{State: "not_enrolled"}
	id, err := enroll.Read(dir)
	switch {
	case err == nil:
		leaf := id.Keypair.Leaf()
		s.State, s.Agent, s.Group, s.Workspace, s.Installation, s.Relays = "enrolled", id.Agent, id.Group, id.Workspace, id.Installation, id.RelayAddrs
		s.NotBefore, s.NotAfter, s.Serial = leaf.NotBefore, leaf.NotAfter, leaf.SerialNumber.Text(16)
		if now.After(s.NotAfter) {
			s.State = "expired"
		} else if now.Before(s.NotBefore) {
			s.State = "not_yet_valid"
		}
	case !errors.Is(err, enroll.ErrNotEnrolled):
		return s, err
	}
	ways, _ := uplink.ReadChoices(filepath.Join(dir, agent.ChoicesFile)) // a hint, and no part of the standing
	s.WebSocket, s.QUIC = map[string]uplink.Choice{}, map[string]uplink.Choice{}
	for addr, c := range ways {
		switch c.Transport {
		case uplink.TransportWebSocket:
			s.WebSocket[addr] = c
		case uplink.TransportQUIC, uplink.TransportTCP:
			s.QUIC[addr] = c
		}
	}
	spool := filepath.Join(dir, "audit")
	g, err := audit.Peek(spool)
	if err != nil {
		return s, fmt.Errorf("look at the record: %w", err)
	}
	s.Record = record{Bytes: g.Bytes, Oldest: g.Oldest, Last: g.Last.Seq, LastHash: g.Last.Hash, LastTime: g.Last.Time}
	cursor, _, err := audit.ReadCursor(filepath.Join(spool, "relay.cursor"))
	if err != nil {
		return s, err
	}
	s.Record.Sent = cursor.Seq
	if g.Last.Seq > cursor.Seq {
		s.Record.Waiting = g.Last.Seq - cursor.Seq
	}
	return s, nil
}

func (s standing) print(t *cli.Term, dir string) {
	line := func(name, format string, args ...any) {
		t.Printf("%-14s %s\n", name, cli.Clean(fmt.Sprintf(format, args...)))
	}
	at := func(moment time.Time) string { return moment.Local().Format("2006-01-02 15:04:05 MST") }
	if s.State == "not_enrolled" {
		line("identity", "none: %s is not enrolled", dir)
	} else {
		line("agent", "%s", s.Agent)
		line("group", "%s", s.Group)
		line("workspace", "%s", s.Workspace)
		line("installation", "%s", s.Installation)
		line("relay", "%s", strings.Join(s.Relays, ", "))
		for _, addr := range slices.Sorted(maps.Keys(s.WebSocket)) {
			c := s.WebSocket[addr]
			line("transport", "websocket to %s, for TCP did not pass at %s: %s", addr, at(c.Since), c.Reason)
		}
		for _, addr := range slices.Sorted(maps.Keys(s.QUIC)) {
			if c := s.QUIC[addr]; c.Transport == uplink.TransportQUIC {
				line("transport", "quic to %s, which passed at %s", addr, at(c.Since))
			} else {
				line("transport", "tcp to %s, for QUIC did not pass at %s: %s; tried again after %s", addr, at(c.Since), c.Reason, at(c.Retry))
			}
		}
		switch s.State {
		case "expired":
			line("certificate", "EXPIRED on %s: get a join token and run: fairlead-agent enroll --force", at(s.NotAfter))
		case "not_yet_valid":
			line("certificate", "NOT VALID before %s: is this machine's clock right?", at(s.NotBefore))
		default:
			line("certificate", "valid until %s, renews itself (serial %s)", at(s.NotAfter), s.Serial)
		}
	}
	r := s.Record
	line("record", "%s on disk", cli.Bytes(r.Bytes))
	if r.Last > 0 {
		line("last record", "%d, %s", r.Last, at(r.LastTime))
		line("waiting", "%d records that the relay does not hold yet", r.Waiting)
	}
}
