package authn

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/passkey"
)

// Rules of refusals about passkeys.
const (
	RulePasskey   = "sign_in.passkey"   // a passkey is wanted, and nothing else will do
	RuleWorkspace = "sign_in.workspace" // the person belongs to several: name one
)

func wantsPasskey() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeInvalid, Rule: RulePasskey, Origin: protocol.OriginRelay, Message: "a passkey is wanted",
		Hint: "the password alone proves nothing here: open the relay's page /account in a browser"}
}

func wrongPasskey() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: RulePasskey, Message: "that is not the right answer",
		Hint: "begin again, within five minutes and in the same session, with a passkey of your own that is not marked"}
}

func wantsWorkspace() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeInvalid, Rule: RuleWorkspace, Origin: protocol.OriginRelay, Message: "you belong to several workspaces", Hint: "name the one that you want to sign in to, and begin again"}
}

// counterBack is the reason that stands in the record when a passkey may have a copy.
const counterBack = "the passkey's counter went back: there may be a copy of it, and it is refused from now on"

func owner(p *directory.Person, name string) passkey.Owner {
	return passkey.Owner{Handle: p.ID, Name: name}
}

func (p *People) ceremonies() (*passkey.Ceremonies, error) {
	if p.conf.Passkeys == nil {
		return nil, directory.PasskeysAreOff()
	}
	return p.conf.Passkeys, nil
}

// BeginPasskey gives whoever asks a ceremony to sign in by a passkey: the same to everybody, for it names nobody. Nobody waits here for
// what others in the network did wrong; who answers is known, and so is whether they were there before.
func (p *People) BeginPasskey(source netip.Addr) (string, json.RawMessage, error) {
	c, err := p.ceremonies()
	if err != nil {
		return "", nil, err
	}
	return c.BeginSignIn(directory.Network(source).String(), wide(source).String())
}

// PasskeySignIn is what somebody sends to sign in by a passkey.
type PasskeySignIn struct {
	Ceremony   string
	Workspace  string // "": the only one that the person belongs to
	Answer     []byte // of the authenticator, JSON
	Source     netip.Addr
	Agent      string
	Idle, Life time.Duration
}

// nobody is the account that answers of unknown passkeys count for. No id of a person looks like it.
const nobody = "passkey"

// SignInPasskey begins a session by a passkey alone. Whatever does not fit, the refusal is the one that passwords get.
func (p *People) SignInPasskey(ctx context.Context, in PasskeySignIn) (Result, error) {
	var res Result
	c, err := p.ceremonies()
	if err != nil {
		return res, err
	}
	open, closed := c.Take(passkey.SignIn, in.Ceremony, "") // whatever comes: it was for one answer
	snap := p.dir.Snapshot()
	if snap.Stale {
		return res, stale()
	}
	missing := false // told after the attempt is counted, so that who has to wait learns of no workspace
	if in.Workspace != "" {
		res.Workspace, err = snap.Workspace(in.Workspace)
		missing = err != nil
	}
	answer, unread := c.Read(in.Answer)
	var key *directory.Passkey
	var person *directory.Person
	account := nobody
	if unread == nil {
		if key = snap.Passkey(answer.Credential()); key != nil {
			person, account = snap.Person(key.Person), key.Person
			res.Passkey = key
		}
	}
	done, wait, held := p.att.begin(account, in.Source, p.dir.Knows(person, in.Source), time.Now())
	if wait > 0 {
		if res.Reason = "too many attempts failed"; res.Workspace == nil && person != nil {
			res.Workspace, res.Principal = snap.AtHome(person)
		}
		return res, tooMany(wait)
	}
	refused := func(reason string) (Result, error) {
		res.Reason = reason
		if res.Workspace == nil && person != nil { // it must stand in some log
			res.Workspace, res.Principal = snap.AtHome(person)
		}
		if held > 0 { // what everybody in the network is told whom the relay does not know from there
			return res, tooMany(held)
		}
		return res, refusedSignIn()
	}
	switch {
	case missing:
		return refused("the workspace is not there")
	case closed != nil:
		return refused(closed.Error())
	case unread != nil:
		return refused(unread.Error())
	case key == nil:
		return refused("the passkey is not known")
	}
	ws, as := snap.Where(person.ID)
	if res.Workspace == nil && len(ws) == 1 {
		res.Workspace = ws[0]
	}
	admitted, name := false, ""
	for i, w := range ws {
		if res.Workspace == nil || w == res.Workspace {
			admitted = admitted || w.Admits(directory.People, in.Source)
		}
		if w == res.Workspace {
			res.Principal, name = as[i], as[i].Name
		}
	}
	if !admitted && (res.Workspace == nil || !res.Workspace.Admits(directory.People, in.Source)) {
		return refused("the source address is not on the workspace's allowlist")
	}
	have, err := p.dir.Credential(key)
	if err != nil {
		done(false)
		return res, err
	}
	used, err := open.Verify(answer, owner(person, name), have)
	switch {
	case err != nil:
		return refused(err.Error())
	case !key.Suspect.IsZero():
		return refused("the passkey is marked: there may be a copy of it")
	case used.Back:
		if err := p.dir.SuspectPasskey(ctx, key); err != nil {
			return res, err
		}
		res.Marked = true
		return refused(counterBack)
	case res.Workspace == nil:
		done(false)
		return res, wantsWorkspace()
	case res.Principal == nil:
		return refused("the passkey's person does not belong to the workspace")
	case res.Principal.Disabled:
		return refused("the user is disabled")
	case res.Workspace.SignIn.Passkeys == directory.PasskeysOff:
		return refused("the workspace has switched passkeys off")
	}
	n := directory.NewSession{Principal: res.Principal.ID, Source: in.Source, Agent: in.Agent, Idle: in.Idle, Life: in.Life}
	res.Session, res.Text, err = p.dir.BeginPasskeySession(ctx, res.Workspace.ID, directory.PasskeySession{NewSession: n, Passkey: key, Used: used})
	switch {
	case errors.Is(err, directory.ErrCode):
		return refused("the passkey was used meanwhile")
	case err != nil && protocol.AsError(err).Code == protocol.CodeNotFound: // the user or the passkey went in this moment
		return refused("the passkey is not known")
	}
	done(false)
	if err != nil {
		return res, err
	}
	p.att.clear(account, in.Source)
	return res, nil
}

// BeginAddPasskey gives a session a ceremony that makes a passkey for its person.
func (p *People) BeginAddPasskey(s *directory.Session) (string, json.RawMessage, error) {
	c, have, err := p.having(s)
	if err == nil {
		err = p.dir.MayAddPasskey(s)
	}
	if err != nil {
		return "", nil, err
	}
	return c.BeginRegister(owner(s.Person, s.Principal.Name), s.ID, have)
}

func (p *People) having(s *directory.Session) (*passkey.Ceremonies, []passkey.Credential, error) {
	c, err := p.ceremonies()
	if err != nil {
		return nil, nil, err
	}
	have, err := p.dir.Credentials(s.Person)
	return c, have, err
}

// AddPasskey gives the person of a session a passkey. All sessions end, and the one that asked gets a new text.
func (p *People) AddPasskey(ctx context.Context, s *directory.Session, ceremony, label string, answer []byte) (*directory.Passkey, *directory.Session, secret.Bytes, error) {
	none := secret.Bytes{}
	c, err := p.ceremonies()
	if err != nil {
		return nil, nil, none, err
	}
	if _, err := directory.PasskeyLabel(label); err != nil {
		return nil, nil, none, err // the ceremony stays open: the authenticator has its key by now
	}
	open, err := c.Take(passkey.Register, ceremony, s.ID)
	var made passkey.Credential
	if err == nil {
		made, err = open.Register(answer, owner(s.Person, s.Principal.Name))
	}
	if r := (*passkey.Refusal)(nil); errors.As(err, &r) {
		return nil, nil, none, &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: RulePasskey, Message: "the passkey was not taken: " + r.Reason,
			Hint: "begin again, within five minutes and in the same session; the authenticator must ask for your finger, face or PIN"}
	}
	if err != nil {
		return nil, nil, none, err
	}
	return p.dir.AddPasskey(ctx, s, label, made)
}

// BeginConfirm gives a session a ceremony that makes it fresh by a passkey of its person.
func (p *People) BeginConfirm(s *directory.Session) (string, json.RawMessage, error) {
	c, have, err := p.having(s)
	if err != nil {
		return "", nil, err
	}
	if err := p.dir.MayConfirmByPasskey(s); err != nil {
		return "", nil, err
	}
	if len(have) == 0 {
		return "", nil, &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Message: "you have no passkey", Hint: "confirm with your password, or with a code of your second factor"}
	}
	return c.BeginConfirm(owner(s.Person, s.Principal.Name), s.ID, have)
}

// ConfirmPasskey makes a session fresh for dangerous acts by a passkey. The old text counts no more. The result has the session, the
// passkey and, of a refusal, the reason for the record if there is more to say than that it failed.
func (p *People) ConfirmPasskey(ctx context.Context, s *directory.Session, source netip.Addr, ceremony string, answer []byte) (res Result, _ error) {
	c, err := p.ceremonies()
	if err != nil {
		return res, err
	}
	if err := p.dir.MayConfirmByPasskey(s); err != nil {
		return res, err
	}
	done, wait, _ := p.att.begin(s.Person.ID, source, p.dir.Knows(s.Person, source), time.Now())
	if wait > 0 {
		return res, tooMany(wait)
	}
	refused := func(reason string) (Result, error) {
		res.Reason = reason
		return res, wrongPasskey()
	}
	open, closed := c.Take(passkey.Confirm, ceremony, s.ID)
	a, unread := c.Read(answer)
	if err := cmp.Or(closed, unread); err != nil {
		return refused(err.Error())
	}
	key := p.dir.Snapshot().Passkey(a.Credential())
	if key == nil || key.Person != s.Person.ID {
		return refused("the passkey is not the person's")
	}
	if res.Passkey = key; !key.Suspect.IsZero() {
		return refused("the passkey is marked: there may be a copy of it")
	}
	have, err := p.dir.Credential(key)
	if err != nil {
		done(false)
		return res, err
	}
	used, err := open.Verify(a, owner(s.Person, s.Principal.Name), have)
	if err != nil {
		return refused(err.Error())
	}
	if used.Back {
		if err := p.dir.SuspectPasskey(ctx, key); err != nil {
			return res, err
		}
		res.Marked = true
		return refused(counterBack)
	}
	res.Session, res.Text, err = p.dir.ConfirmByPasskey(ctx, s, key, used)
	if errors.Is(err, directory.ErrCode) {
		return refused("the passkey was used meanwhile")
	}
	done(false)
	if err == nil {
		p.att.clear(s.Person.ID, source)
	}
	return res, err
}
