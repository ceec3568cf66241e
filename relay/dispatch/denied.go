package dispatch

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
)

// Refusals of one token that are recorded one by one: so many a second for long, and so many at once.
const (
	DefaultDeniedRate  = 20
	DefaultDeniedBurst = 200
)

// denials holds back the flood: a token's holder could else fill the audit log, and hide one refusal among many.
type denials struct {
	mu    sync.Mutex // guards the fields below
	flood budget.Flood
	of    map[string]audit.Event // what the event of a count will say, by the flood's keys
}

func (d *Dispatcher) deniedLimits() (rate, burst int) {
	rate, burst = d.DeniedRate, d.DeniedBurst
	if rate == 0 {
		rate = DefaultDeniedRate
	}
	if burst == 0 {
		burst = DefaultDeniedBurst
	}
	return rate, burst
}

// Denied records a refusal, and waits until it is durable; beyond the token's budget it counts it. The refusal is given even if
// it cannot be recorded: nothing was done.
func (d *Dispatcher) Denied(ctx context.Context, p authz.Principal, ev audit.Event) {
	if !d.tellAlone(p, ev) {
		return
	}
	t, err := d.Record(ev)
	if err == nil {
		err = t.Wait(ctx)
	}
	if err != nil {
		d.Logger.Warn("a refusal could not be recorded", "request_id", ev.RequestID, "error", err)
	}
}

// tellAlone counts a refusal that the token's budget does not let stand by itself.
func (d *Dispatcher) tellAlone(p authz.Principal, ev audit.Event) bool {
	n := &d.denials
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.flood.Rate == 0 {
		rate, burst := d.deniedLimits()
		n.flood.Rate, n.flood.Burst = float64(rate), float64(burst)
	}
	key := ev.Workspace + " " + p.ID + " " + p.Token
	if n.flood.Admit(key, time.Now()) {
		return true
	}
	n.put(key, audit.Event{Kind: ev.Kind, Workspace: ev.Workspace, Origin: string(protocol.OriginRelay), Principal: p.ID, PrincipalName: p.Name,
		SourceAddress: ev.SourceAddress, Decision: "deny", Code: string(protocol.CodeRateLimited)})
	return false
}

// put keeps what the event of a count will say of who it was. n.mu is held.
func (n *denials) put(key string, ev audit.Event) {
	if n.of == nil {
		n.of = map[string]audit.Event{}
	}
	n.of[key] = ev
}

// Run records every second what was counted only, until ctx ends, and once more then.
func (d *Dispatcher) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	defer d.TellDenied()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.TellDenied()
		}
	}
}

// TellDenied records what was counted only, one event for each token. The source is that of the last refusal.
func (d *Dispatcher) TellDenied() {
	n := &d.denials
	n.mu.Lock()
	counts, of := n.flood.Take(time.Now()), n.of
	n.of = nil
	n.mu.Unlock()
	rate, _ := d.deniedLimits()
	for key, count := range counts {
		ev := of[key]
		of := "one token"
		if ev.Kind == audit.KindRefused {
			of = "who would sign in"
		}
		ev.Reason = fmt.Sprintf("refusals of %s beyond %d a second are counted, not recorded one by one", of, rate)
		ev.Detail = map[string]string{"count": strconv.FormatInt(count, 10)}
		d.Logger.Warn("a token's requests are refused in a flood", "workspace", ev.Workspace, "principal", ev.Principal, "count", count)
		if _, err := d.Record(ev); err != nil {
			d.Logger.Warn("refusals could not be recorded; the next event will count them", "workspace", ev.Workspace, "count", count, "error", err)
			n.mu.Lock()
			n.flood.Return(key, count, time.Now())
			n.put(key, ev)
			n.mu.Unlock()
		}
	}
}
