package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"rsc.io/qr"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/mail"
	"github.com/fairleadhq/fairlead/relay/password"
	"github.com/fairleadhq/fairlead/relay/totp"
)

// factorRoutes are those of the person's own second factor.
func (a *API) factorRoutes() {
	account(a, "POST", "/account/second-factor", audit.KindFactor, true, "A secret for an authenticator app, shown this once; a code puts it in force", 200, func(ctx context.Context, v *visit, _ *none) (*out[client.NewSecondFactor], error) {
		v.tell(particulars{"method": methodTOTP})
		s, err := a.cfg.Directory.BeginSecondFactor(ctx, v.session.Person)
		if err != nil {
			return nil, err
		}
		uri := totp.URI("Fairlead "+v.workspace.Name, v.principal.Name, s)
		rows, err := qrRows(uri)
		if err != nil {
			return nil, err
		}
		return &out[client.NewSecondFactor]{client.NewSecondFactor{Secret: totp.Text(s), URI: uri, QR: rows}}, nil
	})
	account(a, "PUT", "/account/second-factor", audit.KindFactor, true, "Put the new second factor in force; all other sessions end, and recovery codes are shown this once", 200, func(ctx context.Context, v *visit, i *struct{ Body client.ProveSecondFactor }) (*out[client.RecoveryCodes], error) {
		v.tell(particulars{"method": methodTOTP})
		codes, t, text, err := a.cfg.People.ProveFactor(ctx, v.session, i.Body.Code)
		if err != nil {
			return nil, err
		}
		a.notifyOwn(v, mail.FactorAdded)
		s := v.signedIn(t, text, v.cookie)
		return &out[client.RecoveryCodes]{client.RecoveryCodes{Codes: exposed(codes), Session: &s}}, nil
	})
	account(a, "DELETE", "/account/second-factor", audit.KindFactor, true, "Take the second factor away, unless a workspace demands one; all other sessions end", 204, func(ctx context.Context, v *visit, _ *none) (*none, error) {
		v.tell(particulars{"method": methodTOTP})
		err := a.cfg.Directory.RemoveSecondFactor(ctx, v.session.Person, v.session.ID)
		if err == nil && !v.session.Person.SecondFactor.IsZero() {
			a.notifyOwn(v, mail.FactorRemoved)
		}
		return nil, err
	})
	account(a, "POST", "/account/recovery-codes", audit.KindFactor, true, "New recovery codes in place of the old, shown this once", 200, func(ctx context.Context, v *visit, _ *none) (*out[client.RecoveryCodes], error) {
		v.tell(particulars{"method": "recovery codes"})
		codes, err := a.cfg.Directory.NewRecoveryCodes(ctx, v.session.Person)
		if err != nil {
			return nil, err
		}
		return &out[client.RecoveryCodes]{client.RecoveryCodes{Codes: exposed(codes)}}, nil
	})
}

// qrRows is a QR code, a text of 0 and 1 for each row: black is 1. The quiet zone is for who draws it.
func qrRows(text string) ([]string, error) {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return nil, fmt.Errorf("make a QR code: %w", err)
	}
	rows := make([]string, code.Size)
	for y := range rows {
		row := make([]byte, code.Size)
		for x := range row {
			row[x] = '0' + byte(btoi(code.Black(x, y)))
		}
		rows[y] = string(row)
	}
	return rows, nil
}

func exposed(l []secret.Bytes) []string {
	out := make([]string, len(l))
	for i, s := range l {
		out[i] = s.ExposeString()
	}
	return out
}

// sessions lists those that live.
func sessions(v *visit, l []*directory.Session) client.List[client.Session] {
	o, now := client.List[client.Session]{Items: []client.Session{}}, time.Now()
	for _, t := range l {
		if !t.Live(now) {
			continue
		}
		name := t.Workspace
		if w, err := v.snap.Workspace(t.Workspace); err == nil {
			name = w.Name
		}
		o.Items = append(o.Items, client.Session{ID: t.ID, User: t.Principal.Name, Workspace: name, Source: t.Source, Agent: t.Agent, CreatedAt: t.Created, LastUsedAt: t.LastUsed(),
			EndsAt: t.Ends(), Current: t.ID == v.principal.Token, ETag: t.ETag()})
	}
	return o
}

// target is the path for the record. A user's name is sensitive: its id stands in its place, and nothing for who is not there.
func target(hc huma.Context, r *http.Request, v *visit) string {
	head, tail, ok := strings.Cut(hc.Operation().Path, "/users/{id}")
	if !ok {
		return strings.TrimPrefix(r.URL.Path, client.BasePath)
	}
	id := "{id}"
	if p, _, err := userOf(v.workspace, hc.Param("id")); err == nil {
		id = p.ID
	}
	return strings.Replace(head, "{workspace}", v.workspace.ID, 1) + "/users/" + id + tail
}

// userOf finds a user of the workspace by name or id.
func userOf(w *directory.Workspace, nameOrID string) (*directory.Principal, *directory.Person, error) {
	if p := w.PersonOf(nameOrID); p != nil {
		return w.Principal(nameOrID), p, nil
	}
	if pr, p := w.User(nameOrID); pr != nil {
		return pr, p, nil
	}
	return nil, nil, &protocol.Error{Code: protocol.CodeNotFound, Message: "no such user", Hint: "list them: fairlead users list"}
}

func (a *API) userRoutes() {
	const ws = "/workspaces/{workspace}"
	route(a, "GET", ws+"/users", authz.UsersRead, "List the people of the workspace", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.User]], error) {
		l := client.List[client.User]{Items: []client.User{}}
		count, now := map[string]int{}, time.Now()
		for _, t := range v.workspace.Sessions {
			if t.Live(now) {
				count[t.Principal.ID]++
			}
		}
		for _, p := range v.workspace.Users() {
			u := a.user(v.workspace, p)
			u.Sessions = count[p.ID]
			l.Items = append(l.Items, u)
		}
		return &out[client.List[client.User]]{l}, nil
	})
	route(a, "POST", ws+"/users", authz.UsersCreate, "Take somebody in; the one-time code that sets the password goes by e-mail, or is shown this once", 201, func(ctx context.Context, v *visit, i *in[client.NewUser]) (*out[client.UserCode], error) {
		n := directory.NewUser{Name: i.Body.Name, Person: i.Body.Person, Life: seconds(i.Body.ExpiresInSeconds), Email: i.Body.Email}
		var err error
		if n.Roles, err = roles(i.Body.Roles); err != nil {
			return nil, err
		}
		way, err := a.postTo(v, "", i.Body.Email, i.Body.Send, i.Body.ShowCode)
		if err != nil {
			return nil, err
		}
		p, code, err := a.cfg.Directory.CreateUser(ctx, v.by(), v.workspace.ID, n)
		if err != nil {
			way.release()
			return nil, a.recorded(ctx, v, err)
		}
		o, person := client.UserCode{ID: p.ID, Name: p.Name}, ""
		if now, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID); err == nil && !code.IsZero() {
			if q := now.PersonOf(p.ID); q != nil && !q.InvitedUntil.IsZero() {
				o.ExpiresAt, person = &q.InvitedUntil, q.ID
			}
		}
		way.give(a, v, &o, person, code)
		return &out[client.UserCode]{o}, nil
	})
	route(a, "POST", ws+"/users/{id}/code", authz.UsersEdit, "A new one-time code that sets the user's password; it goes by e-mail, or is shown this once", 201, func(ctx context.Context, v *visit, i *ofUser[client.NewUserCode]) (*out[client.UserCode], error) {
		p, q, err := userOf(v.workspace, i.ID)
		if err != nil {
			return nil, err
		}
		to := addressFor(v.workspace, q)
		way, err := a.postTo(v, q.ID, to, i.Body.Send, i.Body.ShowCode)
		if err != nil {
			return nil, err
		}
		var place *mail.Place
		if way.place == nil {
			if place, err = a.act(v, q, mail.CodeGiven); err != nil {
				return nil, err
			}
		}
		code, until, err := a.cfg.Directory.MailCode(ctx, v.by(), v.workspace.ID, p.ID, seconds(i.Body.ExpiresInSeconds), way.to)
		if err != nil {
			way.release()
			place.Release()
			return nil, a.recorded(ctx, v, err)
		}
		o := client.UserCode{ID: p.ID, Name: p.Name, ExpiresAt: &until}
		if way.give(a, v, &o, q.ID, code); !o.Sent {
			a.notifyIn(v, place, q, q.Email, mail.CodeGiven, v.workspace.Name, p.Name)
		}
		return &out[client.UserCode]{o}, nil
	})
	a.emailRoute()
	on := func(method, path string, action authz.Action, summary string, f func(ctx context.Context, v *visit, p *directory.Principal, q *directory.Person) error) {
		route(a, method, ws+"/users/{id}"+path, action, summary, 204, func(ctx context.Context, v *visit, i *inID) (*none, error) {
			p, q, err := userOf(v.workspace, i.ID)
			if err != nil {
				return nil, err
			}
			return nil, a.recorded(ctx, v, f(ctx, v, p, q))
		})
	}
	on("POST", "/disable", authz.UsersEdit, "Refuse the user in this workspace; what runs is cut", func(ctx context.Context, v *visit, p *directory.Principal, _ *directory.Person) error {
		return a.cfg.Directory.SetUserDisabled(ctx, v.by(), v.workspace.ID, p.ID, true)
	})
	on("POST", "/enable", authz.UsersEdit, "Let a disabled user in again", func(ctx context.Context, v *visit, p *directory.Principal, _ *directory.Person) error {
		return a.cfg.Directory.SetUserDisabled(ctx, v.by(), v.workspace.ID, p.ID, false)
	})
	on("DELETE", "", authz.UsersDelete, "Take the user out of the workspace; at home, for good", func(ctx context.Context, v *visit, p *directory.Principal, _ *directory.Person) error {
		gone, err := a.cfg.Directory.RemoveUserBy(ctx, v.by(), v.workspace.ID, p.ID)
		if err == nil {
			a.recordElsewhere(ctx, gone)
		}
		return err
	})
	on("DELETE", "/second-factor", authz.UsersEdit, "Take the user's second factor and passkeys away, for who lost them; all sessions end", func(ctx context.Context, v *visit, p *directory.Principal, q *directory.Person) error {
		var factor, passkeys *mail.Place
		var err error
		if !q.SecondFactor.IsZero() {
			if factor, err = a.act(v, q, mail.FactorRemoved); err != nil {
				return err
			}
		}
		if len(q.Passkeys) > 0 {
			if passkeys, err = a.act(v, q, mail.PasskeyRemoved); err != nil {
				factor.Release()
				return err
			}
		}
		if err = a.cfg.Directory.ResetSecondFactor(ctx, v.by(), v.workspace.ID, p.ID); err != nil {
			factor.Release()
			passkeys.Release()
			return err
		}
		if !q.SecondFactor.IsZero() {
			a.notifyIn(v, factor, q, q.Email, mail.FactorRemoved, v.workspace.Name, p.Name)
			v.tell(particulars{"method": methodTOTP})
		}
		if len(q.Passkeys) > 0 {
			a.notifyIn(v, passkeys, q, q.Email, mail.PasskeyRemoved, v.workspace.Name, p.Name)
			v.tell(passkeysTold(q.Passkeys...))
		}
		return nil
	})
	on("DELETE", "/sessions", authz.UsersEdit, "End all sessions of the user in this workspace", func(ctx context.Context, v *visit, p *directory.Principal, _ *directory.Person) error {
		return a.cfg.Directory.EndSessionsBy(ctx, v.by(), v.workspace.ID, p.ID)
	})
	route(a, "GET", ws+"/sessions", authz.UsersRead, "Everybody's sessions in the workspace", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Session]], error) {
		return &out[client.List[client.Session]]{sessions(v, v.workspace.Sessions)}, nil
	})
	route(a, "DELETE", ws+"/sessions/{id}", authz.UsersEdit, "End a session; what runs in it is cut", 204, func(ctx context.Context, v *visit, i *inID) (*none, error) {
		return nil, a.recorded(ctx, v, a.cfg.Directory.EndSessionBy(ctx, v.by(), v.workspace.ID, i.ID))
	})
	route(a, "GET", ws+"/sign-in-policy", authz.SignInRead, "What is demanded of who signs in", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.SignInPolicy], error) {
		return &out[client.SignInPolicy]{policy(v.workspace)}, nil
	})
	route(a, "PUT", ws+"/sign-in-policy", authz.SignInEdit, "Replace it; sessions that it does not admit end at once", 200, func(ctx context.Context, v *visit, i *in[client.SignInPolicy]) (*out[client.SignInPolicy], error) {
		if err := a.cfg.Directory.SetSignIn(ctx, v.workspace.ID, signInOf(i.Body)); err != nil {
			return nil, err
		}
		now, err := a.cfg.Directory.Snapshot().Workspace(v.workspace.ID)
		if err != nil {
			return nil, err
		}
		return &out[client.SignInPolicy]{policy(now)}, nil
	})
}

// recordElsewhere tells the logs of other workspaces of people who went from there, for their home removed them. Who removed them, and
// from where, is for the home's own log. It comes after the act, so that nobody fills others' logs with what is refused.
func (a *API) recordElsewhere(ctx context.Context, gone []*directory.Principal) {
	var all []audit.Event
	for _, p := range gone {
		all = append(all, audit.Event{Kind: audit.KindChange, Workspace: p.Workspace, RequestID: requestID(ctx), Operation: string(authz.UsersDelete), Decision: "allow", Status: "done",
			Target: "/workspaces/" + p.Workspace + "/users/" + p.ID, Reason: "the user's home workspace removes the person", Origin: string(protocol.OriginRelay)})
	}
	a.recordDone(ctx, all...)
}

// recordDone records what is done already in logs that were not asked before, and waits until it is durable, even if the caller has gone.
func (a *API) recordDone(ctx context.Context, all ...audit.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	tickets := make([]*audit.Ticket, len(all))
	var failed error
	for i, ev := range all {
		t, err := a.cfg.Dispatch.Record(ev)
		tickets[i], failed = t, cmp.Or(failed, err)
	}
	for _, t := range tickets {
		if t != nil {
			failed = cmp.Or(failed, t.Wait(ctx))
		}
	}
	if failed != nil {
		a.cfg.Logger.Error("what was done could not be recorded in other workspaces' logs", "request_id", requestID(ctx), "error", failed)
	}
}

// recordTimeout is how long an answer waits for the record of what is done.
const recordTimeout = 10 * time.Second

func signInOf(b client.SignInPolicy) directory.SignIn {
	return directory.SignIn{Policy: password.Policy{MinLength: b.MinLength, Classes: b.Classes, MaxAgeDays: b.MaxAgeDays, History: b.History}, SecondFactor: b.SecondFactor, Passkeys: b.Passkeys,
		Idle: seconds(b.IdleSeconds), Absolute: seconds(b.AbsoluteSeconds), StepUp: seconds(b.StepUpSeconds), PersonalTokens: seconds(b.PersonalTokenSeconds)}
}

// policy tells what is in force, with the defaults filled in.
func policy(w *directory.Workspace) client.SignInPolicy {
	s := w.SignIn.InForce()
	return client.SignInPolicy{SecondFactor: s.SecondFactor, Passkeys: s.Passkeys, MinLength: s.MinLength, Classes: s.Classes, MaxAgeDays: s.MaxAgeDays, History: s.History,
		IdleSeconds: int64(s.Idle / time.Second), AbsoluteSeconds: int64(s.Absolute / time.Second), StepUpSeconds: int64(s.StepUp / time.Second), PersonalTokenSeconds: int64(s.PersonalTokens / time.Second), ETag: w.SignInETag()}
}

func (a *API) user(w *directory.Workspace, p *directory.Principal) client.User {
	q := w.PersonOf(p.ID)
	u := client.User{ID: p.ID, Name: p.Name, Disabled: p.Disabled, HomeHere: q.Home == w.ID, PasswordSet: !q.PasswordSet.IsZero(), SecondFactor: !q.SecondFactor.IsZero(), Passkeys: len(q.Passkeys),
		CreatedAt: p.Created, Roles: []string{}, Email: mail.Mask(addressFor(w, q)), Mail: a.mailState(w, q), ETag: w.UserETag(p)}
	for _, r := range p.Principal.Roles() {
		u.Roles = append(u.Roles, string(r))
	}
	if time.Now().Before(q.InvitedUntil) {
		u.InvitedUntil = &q.InvitedUntil
	}
	return u
}
