package directory

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// AgentState is what is known of an agent apart from its tunnels.
type AgentState string

const (
	AgentAwaiting AgentState = "awaiting" // enrolled, was never connected
	AgentActive   AgentState = "active"
	AgentDisabled AgentState = "disabled"
)

const (
	stateAwaiting = string(AgentAwaiting)
	stateActive   = string(AgentActive)
	stateDisabled = string(AgentDisabled)
)

// Agent is an enrolled agent.
type Agent struct {
	ID, Workspace string
	Group         string // id
	Created       time.Time
	Disabled      bool
	Certificates  []Certificate // issued and not replaced, oldest first
	agentBody                   // Name, LogKey; Facts as stored

	sealed []byte
	live   *live
}

type agentBody struct {
	Name   string `json:"name,omitempty"`
	LogKey []byte `json:"log_key,omitempty"` // Ed25519 public key of the agent's audit log
	Facts  Facts  `json:"facts"`
}

// Facts is what an agent says of itself when it connects. Nothing is decided by it.
type Facts struct {
	Hostname      string                  `json:"hostname,omitempty"`
	OS            string                  `json:"os,omitempty"`
	Arch          string                  `json:"arch,omitempty"`
	Version       string                  `json:"version,omitempty"`
	SourceAddress netip.Addr              `json:"source_address,omitzero"`
	ConfigDigest  string                  `json:"config_digest,omitempty"`
	ReloadError   string                  `json:"reload_error,omitempty"`
	Profiles      []protocol.ProfileOffer `json:"profiles,omitempty"`
}

func (f Facts) equal(o Facts) bool {
	return f.Hostname == o.Hostname && f.OS == o.OS && f.Arch == o.Arch && f.Version == o.Version && f.SourceAddress == o.SourceAddress &&
		f.ConfigDigest == o.ConfigDigest && f.ReloadError == o.ReloadError &&
		slices.EqualFunc(f.Profiles, o.Profiles, func(a, b protocol.ProfileOffer) bool {
			return a.Name == b.Name && a.Kind == b.Kind && a.Adapter == b.Adapter && slices.Equal(a.Operations, b.Operations)
		})
}

// Bounds of what an agent may have kept about itself.
const (
	maxFact   = 512
	maxOffers = 1000
)

func (f Facts) bounded() Facts {
	for _, s := range []*string{&f.Hostname, &f.OS, &f.Arch, &f.Version, &f.ConfigDigest, &f.ReloadError} {
		*s = strings.ToValidUTF8((*s)[:min(len(*s), maxFact)], "")
	}
	f.Profiles = slices.Clone(f.Profiles[:min(len(f.Profiles), maxOffers)])
	for i := range f.Profiles {
		o := &f.Profiles[i]
		o.Name, o.Adapter = strings.ToValidUTF8(o.Name[:min(len(o.Name), maxFact)], ""), strings.ToValidUTF8(o.Adapter[:min(len(o.Adapter), maxFact)], "")
	}
	return f
}

// Certificate is one that was issued to an agent.
type Certificate struct {
	Serial           string // as the certificate's SerialNumber prints in hexadecimal
	SPKI             []byte // SHA-256 of the public key
	Issued, NotAfter time.Time
	Proven           time.Time // when the agent first connected with it; zero if not yet
}

// live is what is known of an agent since it was last written; all snapshots that hold the agent share it.
type live struct {
	mu          sync.Mutex
	first, last int64 // Unix milliseconds
	facts       Facts
	dirty       bool // facts or first differ from what is stored
	written     int64
}

// merge takes what is stored, if it is newer than what is known.
func (l *live) merge(first, last int64, facts *Facts) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first != 0 && (l.first == 0 || first < l.first) {
		l.first = first
	}
	if facts != nil && last >= l.last && !l.dirty {
		l.facts = *facts
	}
	l.last, l.written = max(l.last, last), max(l.written, last)
}

// Seen tells when the agent was connected first and last; zero if never.
func (a *Agent) Seen() (first, last time.Time) {
	a.live.mu.Lock()
	defer a.live.mu.Unlock()
	return fromMs(a.live.first), fromMs(a.live.last)
}

// Latest is what the agent last said of itself. Do not change its slices.
func (a *Agent) Latest() Facts {
	a.live.mu.Lock()
	defer a.live.mu.Unlock()
	return a.live.facts
}

// State tells whether the agent is disabled, awaiting its first connection, or active.
func (a *Agent) State() AgentState {
	if a.Disabled {
		return AgentDisabled
	}
	if first, _ := a.Seen(); first.IsZero() {
		return AgentAwaiting
	}
	return AgentActive
}

// AgentSeen notes that an agent is connected and what it says of itself. It is to be read at once and written within
// Config.Flush. Texts are cut to 512 bytes and offers to 1000. An unknown agent is ignored.
func (d *Directory) AgentSeen(id string, f Facts) {
	f = f.bounded()
	d.touch(id, func(l *live, at int64) {
		if l.first == 0 || !l.facts.equal(f) {
			l.facts, l.dirty = f, true
		}
	})
}

// TouchAgent notes that an agent is still connected. It costs no write; call it at each heartbeat.
func (d *Directory) TouchAgent(id string) {
	d.touch(id, func(l *live, at int64) { l.dirty = l.dirty || l.first == 0 })
}

func (d *Directory) touch(id string, f func(l *live, at int64)) {
	a := d.Snapshot().Agent(id)
	if a == nil {
		return
	}
	at := toMs(now())
	a.live.mu.Lock()
	defer a.live.mu.Unlock()
	f(a.live, at)
	if a.live.first == 0 {
		a.live.first = at
	}
	a.live.last = max(a.live.last, at)
}

// editAgent reads an agent's row, lets f change it, and writes it back.
func (d *Directory) editAgent(tx *store.Tx, workspace, id string, f func(*store.Agent, *agentBody) error) (store.Agent, error) {
	r, err := tx.Agent(workspace, id)
	if err != nil {
		return r, err
	}
	var b agentBody
	if err := open(d.vault, place(workspace, "agents", id, r.Version), r.Sealed, &b); err != nil {
		return r, err
	}
	if err := f(&r, &b); err != nil {
		return r, err
	}
	r.Version++
	if r.Sealed, err = seal(d.vault, place(workspace, "agents", id, r.Version), b); err != nil {
		return r, err
	}
	return r, tx.UpdateAgent(r)
}

// Each call makes a new error: callers put their request id into it.
func noAgent() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such agent", Hint: "list them: fairlead agents list"}
}

// setAgentState judges nobody without by.
func (d *Directory) setAgentState(ctx context.Context, by *By, workspace, id string, state func(r *store.Agent) string) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		if err := w.mayOnAgent(by, authz.AgentsEdit, id); err != nil {
			return err
		}
		_, err := d.editAgent(tx, w.ID, id, func(r *store.Agent, _ *agentBody) error {
			r.State = state(r)
			return nil
		})
		return as(err, noAgent(), nil)
	})
}

// DisableAgent refuses the agent from now on. Its tunnels are the hub's to cut: it learns of it by Changed. It asks for
// nobody's rights, nor do EnableAgent and DeleteAgent: what somebody asks for is DisableAgentBy.
func (d *Directory) DisableAgent(ctx context.Context, workspace, id string) error {
	return d.setAgentState(ctx, nil, workspace, id, disabledNow)
}

// EnableAgent admits a disabled agent again.
func (d *Directory) EnableAgent(ctx context.Context, workspace, id string) error {
	return d.setAgentState(ctx, nil, workspace, id, enabledNow)
}

func disabledNow(*store.Agent) string { return stateDisabled }

func enabledNow(r *store.Agent) string {
	if r.FirstSeen == 0 {
		return stateAwaiting
	}
	return stateActive
}

// DeleteAgent removes the agent, its certificates and its audit cursor. It cannot come back but by enrolling anew.
func (d *Directory) DeleteAgent(ctx context.Context, workspace, id string) error {
	return d.deleteAgent(ctx, nil, workspace, id)
}

// deleteAgent judges nobody without by.
func (d *Directory) deleteAgent(ctx context.Context, by *By, workspace, id string) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		if err := w.mayOnAgent(by, authz.AgentsDelete, id); err != nil {
			return err
		}
		return as(tx.DeleteAgent(w.ID, id), noAgent(), nil)
	})
}

// Enrolment is what an agent brings when it enrols.
type Enrolment struct {
	Name, Hostname, OS, Arch, Version string
	SourceAddress                     netip.Addr
	SPKI                              []byte // SHA-256 of the public key that it proved to hold
	LogKey                            []byte // Ed25519 public key of its audit log
}

// Enroll consumes a join token and registers an agent, both or neither. issue is called within the transaction, so it must be
// quick and must not change the directory; it signs the first certificate for the identity given. An agent that did not get the
// answer may ask again with the same token and the same key until it was connected or the token expires, and is the same agent;
// for anybody else a used token is refused.
func (d *Directory) Enroll(ctx context.Context, token secret.Bytes, e Enrolment,
	issue func(workspace, group, agent string) (Certificate, error)) (*Agent, error) {
	if len(e.SPKI) != 32 || len(e.LogKey) != 32 {
		return nil, invalid("the enrolment brings no proper keys", "use the agent's own enroll command")
	}
	for _, s := range []string{e.Name, e.Hostname, e.OS, e.Arch, e.Version} {
		if s != "" && checkLabel(s) != nil {
			return nil, invalid("a name, host name or version is too long or holds control characters", "use at most 128 printable characters")
		}
	}
	if e.Name == "" {
		e.Name = e.Hostname
	}
	digest, err := d.vault.Digest("", vault.JoinToken, token.ExposeString())
	if err != nil {
		return nil, err
	}
	id, at := NewID("agt"), now()
	err = d.change(ctx, func(tx *store.Tx) error {
		t, err := tx.ConsumeJoinToken(digest[:], id, toMs(at))
		if errors.Is(err, store.ErrNotFound) {
			if t, err = d.reenroll(tx, digest[:], e.SPKI, at); err == nil {
				if err := d.Snapshot().before(t.Workspace).mayJoin(t, e.SourceAddress, at); err != nil {
					return err
				}
				id = t.UsedBy
				return d.issue(tx, t, at, issue)
			}
		}
		if err != nil {
			return err
		}
		if err := d.Snapshot().before(t.Workspace).mayJoin(t, e.SourceAddress, at); err != nil {
			return err
		}
		body := agentBody{Name: e.Name, LogKey: e.LogKey, Facts: Facts{Hostname: e.Hostname, OS: e.OS, Arch: e.Arch, Version: e.Version,
			SourceAddress: e.SourceAddress}}
		sealed, err := seal(d.vault, place(t.Workspace, "agents", id, 1), body)
		if err != nil {
			return err
		}
		if err := tx.InsertAgent(store.Agent{ID: id, Workspace: t.Workspace, Group: t.Group, State: stateAwaiting, Created: toMs(at),
			Version: 1, Sealed: sealed}); err != nil {
			return err
		}
		if err := d.within(tx, t.Workspace, QuotaAgents); err != nil {
			return err
		}
		return d.issue(tx, t, at, issue)
	})
	if err != nil {
		return nil, err
	}
	if a := d.Snapshot().Agent(id); a != nil {
		return a, nil
	}
	return nil, noAgent() // deleted in the same moment
}

// reenroll finds what a join token that cannot be consumed was used for, if the one who asks is that agent.
func (d *Directory) reenroll(tx *store.Tx, digest, spki []byte, at time.Time) (store.JoinToken, error) {
	t, err := tx.JoinTokenByDigest(digest)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return t, &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "the join token is not known",
			Hint: "make a new one: fairlead join-token create --group GROUP"}
	case err != nil:
		return t, err
	case t.Expires <= toMs(at):
		return t, &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "the join token has expired",
			Hint: "make a new one: fairlead join-token create --group GROUP"}
	}
	used := &protocol.Error{Code: protocol.CodeConflict, Message: "the join token was used already",
		Hint: "each agent needs its own: fairlead join-token create --group GROUP"}
	a, err := tx.Agent(t.Workspace, t.UsedBy)
	if err != nil {
		return t, as(err, used, nil)
	}
	if a.State != stateAwaiting {
		return t, used
	}
	certs, err := tx.Certificates(a.ID)
	if err != nil {
		return t, err
	}
	for _, c := range certs {
		if c.Proven == 0 && slices.Equal(c.SPKI, spki) {
			return t, nil
		}
	}
	return t, used
}

func (d *Directory) issue(tx *store.Tx, t store.JoinToken, at time.Time, issue func(workspace, group, agent string) (Certificate, error)) error {
	c, err := issue(t.Workspace, t.Group, t.UsedBy)
	if err != nil {
		return err
	}
	return d.addCertificate(tx, t.UsedBy, c, at)
}

// unproven bounds the certificates that an agent was given and has not used yet.
const unproven = 2

// addCertificate records a certificate, drops those that expired, and the oldest unproven ones.
func (d *Directory) addCertificate(tx *store.Tx, agent string, c Certificate, at time.Time) error {
	if c.Serial == "" || len(c.SPKI) != 32 || !c.NotAfter.After(at) {
		return errors.New("record a certificate: serial, key or end is missing")
	}
	have, err := tx.Certificates(agent)
	if err != nil {
		return err
	}
	fresh, issued := 1, toMs(at)
	if n := len(have); n > 0 {
		issued = max(issued, have[n-1].Issued+1) // their order is that of issue, even within a millisecond
	}
	for _, h := range slices.Backward(have) {
		drop := h.NotAfter <= toMs(at)
		if h.Proven == 0 && !drop {
			fresh++
			drop = fresh > unproven
		}
		if drop {
			if err := tx.DeleteCertificate(agent, h.Serial); err != nil {
				return err
			}
		}
	}
	return tx.InsertCertificate(store.Certificate{Agent: agent, Serial: c.Serial, SPKI: c.SPKI, Issued: issued, NotAfter: toMs(c.NotAfter)})
}

// RecordCertificate records a renewed certificate before it is given out. The one in use stays good until the new one is proven.
func (d *Directory) RecordCertificate(ctx context.Context, agent string, c Certificate) error {
	return d.change(ctx, func(tx *store.Tx) error { return as(d.addCertificate(tx, agent, c, now()), noAgent(), nil) })
}

// ProveCertificate notes that an agent has connected with a certificate: older ones are refused from now on. One that was proven
// before costs nothing.
func (d *Directory) ProveCertificate(ctx context.Context, agent, serial string) error {
	a := d.Snapshot().Agent(agent)
	if a == nil {
		return noAgent()
	}
	if len(a.Certificates) > 0 && a.Certificates[0].Serial == serial && !a.Certificates[0].Proven.IsZero() {
		return nil
	}
	p := &proof{agent: agent, serial: serial}
	d.proofs.mu.Lock()
	d.proofs.waiting = append(d.proofs.waiting, p)
	d.proofs.mu.Unlock()
	d.proofs.turn.Lock()
	defer d.proofs.turn.Unlock()
	if p.done {
		return p.err
	}
	d.proofs.mu.Lock()
	all := d.proofs.waiting
	d.proofs.waiting = nil
	d.proofs.mu.Unlock()
	// For all of them, so not bound to the one who happens to have the turn.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
	defer cancel()
	err := d.change(ctx, func(tx *store.Tx) error {
		for _, p := range all {
			if err := p.write(tx); err != nil {
				return err
			}
		}
		return nil
	})
	for _, p := range all {
		p.done = true
		if err != nil {
			p.err = err
		}
	}
	return p.err
}

// proofs are certificates that agents have just come with. When many agents come together, one transaction and one new
// snapshot serve all who wait: with one for each, a thousand agents would have a thousand agents read a thousand times.
type proofs struct {
	turn    sync.Mutex // held by the one who writes
	mu      sync.Mutex // guards waiting
	waiting []*proof
}

type proof struct {
	agent, serial string

	// Guarded by proofs.turn.
	done bool
	err  error
}

// write marks the certificate as proven and forgets older ones. That it is not there fails this proof alone.
func (p *proof) write(tx *store.Tx) error {
	have, err := tx.Certificates(p.agent)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(have, func(c store.Certificate) bool { return c.Serial == p.serial })
	if i < 0 {
		p.err = noAgent()
		return nil
	}
	if have[i].Proven == 0 {
		if err := tx.ProveCertificate(p.agent, p.serial, toMs(now())); err != nil {
			return err
		}
	}
	for _, c := range have[:i] {
		if err := tx.DeleteCertificate(p.agent, c.Serial); err != nil {
			return err
		}
	}
	return nil
}

// AuditCursor tells how far the relay holds an agent's audit log; the zero LogHead before the first event.
func (d *Directory) AuditCursor(ctx context.Context, agent string) (h protocol.LogHead, err error) {
	err = d.store.Read(ctx, func(tx *store.Tx) (err error) {
		h.Seq, h.Hash, err = tx.AuditCursor(agent)
		return err
	})
	return h, fail(err)
}

// SetAuditCursors moves cursors forward, by agent, in one transaction; they are durable when this returns. One that would move
// back, and one of an agent that is gone, is passed over.
func (d *Directory) SetAuditCursors(ctx context.Context, heads map[string]protocol.LogHead) error {
	for _, h := range heads {
		if h.Seq == 0 || h.Seq > 1<<62 || h.Hash == "" {
			return invalid("the log head is malformed", "send the sequence number and hash of a record")
		}
	}
	return fail(d.store.WriteQuiet(ctx, func(tx *store.Tx) error {
		for agent, h := range heads {
			if err := tx.SetAuditCursor(agent, h.Seq, h.Hash); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return nil
	}))
}
