package api

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/mail"
)

// post is how a one-time code gets to its person: by e-mail, in the answer, or both.
type post struct {
	place *mail.Place // nil: not by e-mail
	to    string
	show  bool
}

// postTo takes room for an e-mail before there is a code. It goes wherever it can, unless send says no; send that says yes is refused
// where it cannot. person is "" for who is taken in by it.
func (a *API) postTo(v *visit, person, to string, send *bool, show bool) (p post, err error) {
	demanded := send != nil && *send
	switch {
	case demanded && a.cfg.Mail == nil:
		return p, invalid("this relay sends no e-mail", "leave --send out and give the code to the person yourself; the relay's operator can set mail in relay.yaml")
	case demanded && to == "":
		return p, invalid("there is no e-mail address to send to", "name one: --email, or fairlead users email NAME ADDRESS")
	case a.cfg.Mail == nil || to == "" || send != nil && !*send:
		return p, nil
	}
	p.to, p.show = to, show
	p.place, err = a.cfg.Mail.Reserve(v.workspace.ID, person, to)
	return p, err
}

// release is for when there is no code to send.
func (p post) release() {
	p.place.Release()
}

// give puts a code on its way, and into the answer if that is its way.
func (p post) give(a *API, v *visit, o *client.UserCode, person string, code secret.Bytes) {
	v.tell(particulars{"method": "shown"})
	if p.place == nil || code.IsZero() || o.ExpiresAt == nil {
		p.release()
		o.Code = code.ExposeString()
		return
	}
	p.place.Send(a.cfg.Mail.Code(mail.Code{Workspace: v.workspace.Name, User: o.Name, Code: code, Until: *o.ExpiresAt, Person: person}))
	o.Sent, o.Email, v.detail["method"] = true, mail.Mask(p.to), "email"
	if p.show {
		o.Code, v.detail["method"] = code.ExposeString(), "email, shown"
	}
}

// notify tells a person by e-mail what happened to its account, where it can: nobody waits for it. What kept it from being sent stands
// in the record of what happened.
func (a *API) notify(v *visit, q *directory.Person, to string, n mail.Notice, workspace, user string) {
	a.notifyIn(v, nil, q, to, n, workspace, user)
}

// notifyIn is notify of what act gave a place for.
func (a *API) notifyIn(v *visit, p *mail.Place, q *directory.Person, to string, n mail.Notice, workspace, user string) {
	if a.cfg.Mail == nil {
		return
	}
	why := "there is no address"
	if to != "" {
		m, err := a.cfg.Mail.Notice(n, workspace, user, time.Now()), error(nil)
		if p != nil {
			err = p.Tell(q.ID, to, m)
		} else {
			err = a.cfg.Mail.Tell(q.Home, q.ID, to, m)
		}
		if err == nil {
			return
		}
		why = protocol.AsError(err).Message
	}
	v.tell(particulars{"notice": "not sent: " + why})
}

// notifyOwn is notify for the person of the session.
func (a *API) notifyOwn(v *visit, n mail.Notice) {
	a.notify(v, v.session.Person, v.session.Person.Email, n, v.workspace.Name, v.principal.Name)
}

// act counts what the visitor is about to do to somebody's account, of which that one is told, and takes the place for telling; it refuses
// what is too much. nil is of who cannot be told. Whoever has a place calls notifyIn, or Release when nothing was done.
func (a *API) act(v *visit, q *directory.Person, n mail.Notice) (*mail.Place, error) {
	if a.cfg.Mail == nil || q.Email == "" {
		return nil, nil
	}
	return a.cfg.Mail.Act(q.Home, v.principal.ID, n)
}

// addressFor is the person's address for the eyes of its home workspace alone: there it was given.
func addressFor(w *directory.Workspace, q *directory.Person) string {
	if q.Home != w.ID {
		return ""
	}
	return q.Email
}

// mailState tells what became of the last code of a person; nil where no e-mail can go.
func (a *API) mailState(w *directory.Workspace, q *directory.Person) *client.MailState {
	if a.cfg.Mail == nil || addressFor(w, q) == "" {
		return nil
	}
	s := a.cfg.Mail.State(q.ID)
	if s.Is == "" {
		return &client.MailState{State: client.MailNotSent}
	}
	return &client.MailState{State: s.Is, At: &s.When, Why: s.Why}
}

// ofUser is what a change of one user takes.
type ofUser[T any] struct {
	Workspace string `path:"workspace" doc:"name or id"`
	ID        string `path:"id" doc:"name or id"`
	Body      T
}

// account is what a person sees of itself.
func (a *API) account(v *visit) *out[client.Account] {
	p, now := v.session.Person, time.Now()
	o := client.Account{Person: p.ID, User: v.principal.Name, Workspace: v.workspace.Name, PasswordSetAt: p.PasswordSet, RecoveryCodes: p.Recovery, Passkeys: len(p.Passkeys), Email: mail.Mask(p.Email),
		Needs: v.session.Needs(now), Fresh: v.session.Fresh(now), ETag: p.ETag()}
	if !p.SecondFactor.IsZero() {
		o.SecondFactorSince = &p.SecondFactor
	}
	return &out[client.Account]{o}
}

// ownEmailRoute lets people say where e-mails of the relay go. The address that was is told; where there was none, nobody is.
func (a *API) ownEmailRoute() {
	account(a, "PUT", "/account/email", audit.KindFactor, true, "Set the own e-mail address, or take it away; an open one-time code that may have gone to the old one counts no more", 200, func(ctx context.Context, v *visit, i *struct{ Body client.SetEmail }) (*out[client.Account], error) {
		q := v.session.Person
		was, err := a.cfg.Directory.SetOwnEmail(ctx, q, i.Body.Email)
		if err != nil {
			return nil, err
		}
		snap := a.cfg.Directory.Snapshot()
		if t := snap.Session(v.session.ID); t != nil {
			v.session = t
		}
		if was != "" && was != v.session.Person.Email {
			if a.cfg.Mail != nil {
				a.cfg.Mail.Drop(q.ID)
			}
			a.notify(v, q, was, mail.AddressChanged, v.workspace.Name, v.principal.Name)
		}
		return a.account(v), nil
	})
}

func (a *API) emailRoute() {
	route(a, "PUT", "/workspaces/{workspace}/users/{id}/email", authz.UsersEdit, "Set the user's e-mail address, or take it away; an open one-time code that may have gone to the old one counts no more", 200, func(ctx context.Context, v *visit, i *ofUser[client.SetEmail]) (*out[client.User], error) {
		p, q, err := userOf(v.workspace, i.ID)
		if err != nil {
			return nil, err
		}
		place, err := a.act(v, q, mail.AddressChanged)
		if err != nil {
			return nil, err
		}
		was, err := a.cfg.Directory.SetEmail(ctx, v.by(), v.workspace.ID, p.ID, i.Body.Email)
		if err != nil {
			place.Release()
			return nil, a.recorded(ctx, v, err)
		}
		w, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID)
		if err != nil {
			place.Release()
			return nil, err
		}
		now, person, err := userOf(w, p.ID)
		if err != nil {
			place.Release()
			return nil, err
		}
		if was == "" || was == person.Email {
			place.Release()
		} else {
			if a.cfg.Mail != nil {
				a.cfg.Mail.Drop(q.ID)
			}
			a.notifyIn(v, place, q, was, mail.AddressChanged, w.Name, p.Name)
		}
		return &out[client.User]{a.user(w, now)}, nil
	})
}
