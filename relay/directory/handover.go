package directory

import (
	"context"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/store"
)

// HandOver is what a session that another one gives shall be.
type HandOver struct {
	Source     netip.Addr // where the new one begins
	Agent      string
	Idle, Life time.Duration // shorter than the giver's; 0: as long as the giver's
}

// HandOverSession begins a session of the same person beside from, which must be there and live (not_found). It is a session of its
// own, listed and ended apart, and has no more than from has: it ends when from would at the latest, and counts as proven when and
// how from did. Its text is not kept.
func (d *Directory) HandOverSession(ctx context.Context, from *Session, h HandOver) (*Session, secret.Bytes, error) {
	if h.Idle < 0 || h.Life < 0 || h.Idle > 0 && h.Idle < time.Minute || h.Life > 0 && h.Life < time.Minute {
		return nil, secret.Bytes{}, invalid("the session's time is out of range", "give a minute or more")
	}
	at := now()
	if !from.Live(at) {
		return nil, secret.Bytes{}, noSession()
	}
	ends := from.Expires
	if t := from.Since.Add(from.policy.Absolute); t.Before(ends) { // the policy may be another than it was
		ends = t
	}
	if t := at.Add(h.Life); h.Life > 0 && t.Before(ends) {
		ends = t
	}
	idle := from.idle
	if h.Idle > 0 && (idle == 0 || h.Idle < idle) {
		idle = h.Idle
	}
	b := sessionBody{Principal: from.Principal.ID, Created: toMs(at), Since: toMs(from.Since), Expires: toMs(ends), Confirmed: toMs(from.Confirmed), ByCode: from.ByCode, ByPasskey: from.ByPasskey, Idle: idle, Source: h.Source.String(), Agent: h.Agent}
	return d.putSession(ctx, from.Workspace, b, func(tx *store.Tx) error { return as(tx.HasSession(from.Workspace, from.ID), noSession(), nil) })
}
