package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/mail"
)

// begun is the answer of the routes that begin a ceremony.
func begun(id string, options json.RawMessage, err error) (*out[client.Ceremony], error) {
	if err != nil {
		return nil, err
	}
	o := client.Ceremony{Ceremony: id}
	if err := json.Unmarshal(options, &o.Options); err != nil {
		return nil, fmt.Errorf("options of a passkey ceremony: %w", err)
	}
	return &out[client.Ceremony]{o}, nil
}

// answered is what an authenticator said, as it was sent; the body's bounds are its own.
func answered(credential map[string]any) []byte {
	b, err := json.Marshal(credential)
	if err != nil { // it came as JSON
		return nil
	}
	return b
}

func ownPasskey(k *directory.Passkey) client.Passkey {
	o := client.Passkey{ID: k.ID, Label: k.Label, CreatedAt: k.Created, BackupEligible: k.Eligible, BackedUp: k.BackedUp, Bound: k.Bound, ETag: k.ETag()}
	if !k.LastUsed.IsZero() {
		o.LastUsedAt = &k.LastUsed
	}
	if !k.Suspect.IsZero() {
		o.SuspectSince = &k.Suspect
	}
	return o
}

// passkeyRoutes are those of the person's own passkeys, and of signing in by one.
func (a *API) passkeyRoutes() {
	stranger(a, "POST", "/sign-in/passkey/begin", "Begin to sign in by a passkey: a challenge, the same kind for everybody", 200, func(_ context.Context, v *visit, _ *none) (*out[client.Ceremony], error) {
		return begun(a.cfg.People.BeginPasskey(v.source))
	})
	stranger(a, "POST", "/sign-in/passkey", "Begin a session by a passkey, which stands for password and second factor", 200, a.signInPasskey)
	account(a, "POST", "/account/passkeys/begin", "", true, "Begin to add a passkey", 200, func(_ context.Context, v *visit, _ *none) (*out[client.Ceremony], error) {
		return begun(a.cfg.People.BeginAddPasskey(v.session))
	})
	account(a, "POST", "/account/passkeys", audit.KindFactor, true, "Add a passkey; all other sessions end", 201, func(ctx context.Context, v *visit, i *struct{ Body client.NewPasskey }) (*out[client.AddedPasskey], error) {
		k, t, text, err := a.cfg.People.AddPasskey(ctx, v.session, i.Body.Ceremony, i.Body.Label, answered(i.Body.Credential))
		if err != nil {
			return nil, err
		}
		v.tell(passkeysTold(k))
		a.notifyOwn(v, mail.PasskeyAdded)
		return &out[client.AddedPasskey]{client.AddedPasskey{ID: k.ID, Label: k.Label, CreatedAt: k.Created, BackupEligible: k.Eligible, BackedUp: k.BackedUp,
			Session: v.signedIn(t, text, v.cookie), ETag: k.ETag()}}, nil
	})
	account(a, "GET", "/account/passkeys", "", false, "The person's own passkeys", 200, func(_ context.Context, v *visit, _ *none) (*out[client.List[client.Passkey]], error) {
		l := client.List[client.Passkey]{Items: []client.Passkey{}}
		for _, k := range v.session.Person.Passkeys {
			l.Items = append(l.Items, ownPasskey(k))
		}
		return &out[client.List[client.Passkey]]{l}, nil
	})
	account(a, "DELETE", "/account/passkeys/{id}", audit.KindFactor, true, "Remove a passkey, unless a workspace demands what you then lack; all other sessions end", 204, func(ctx context.Context, v *visit, i *struct {
		ID string `path:"id"`
	}) (*none, error) {
		for _, k := range v.session.Person.Passkeys {
			if k.ID == i.ID {
				v.tell(passkeysTold(k))
			}
		}
		err := a.cfg.Directory.RemovePasskey(ctx, v.session.Person, i.ID, v.session.ID)
		if err == nil {
			a.notifyOwn(v, mail.PasskeyRemoved)
		}
		return nil, err
	})
	account(a, "POST", "/account/confirm/passkey/begin", "", false, "Begin to prove again by a passkey that it is you; POST /account/confirm ends it", 200, func(_ context.Context, v *visit, _ *none) (*out[client.Ceremony], error) {
		return begun(a.cfg.People.BeginConfirm(v.session))
	})
}

// confirmPasskey makes a session fresh by a passkey, and records what is behind a refusal.
func (a *API) confirmPasskey(ctx context.Context, v *visit, b client.Confirm) (*out[client.SignedIn], error) {
	res, err := a.cfg.People.ConfirmPasskey(ctx, v.session, v.source, b.Ceremony, answered(b.Credential))
	if v.tell(particulars{"method": methodPasskey}); res.Passkey != nil {
		v.tell(passkeysTold(res.Passkey))
	}
	if err != nil {
		if res.Reason != "" {
			ev := a.eventIn(ctx, v, audit.KindDenied)
			e := protocol.AsError(err)
			ev.Decision, ev.Code, ev.Rule, ev.Reason, ev.Detail = "deny", string(e.Code), e.Rule, res.Reason, maps.Clone(v.detail)
			a.cfg.Dispatch.Denied(ctx, v.principal, ev)
		}
		res.Workspace = v.workspace
		a.tellMarked(ctx, v, res)
		return nil, err
	}
	return &out[client.SignedIn]{v.signedIn(res.Session, res.Text, v.cookie)}, nil
}

// signInPasskey begins a session by a passkey.
func (a *API) signInPasskey(ctx context.Context, v *visit, i *struct{ Body client.PasskeySignIn }) (*out[client.SignedIn], error) {
	b := i.Body
	snap := a.cfg.Directory.Snapshot()
	if d := snap.DomainOf(v.request.Host); d != nil && b.Workspace == "" {
		b.Workspace = d.ID // a name of its own names the workspace
	}
	if err := under(snap, v.request, b.Workspace); err != nil {
		return nil, err
	}
	res, err := a.cfg.People.SignInPasskey(ctx, authn.PasskeySignIn{Ceremony: b.Ceremony, Workspace: b.Workspace, Answer: answered(b.Credential), Source: v.source, Agent: v.agent,
		Idle: seconds(b.IdleSeconds), Life: seconds(b.LifeSeconds)})
	return a.signedInBy(ctx, v, res, err, methodPasskey, b.Cookie)
}
