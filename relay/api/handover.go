package api

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/client"
)

// handOverRoutes let a person who is signed in with a browser give a program a session of its own.
func (a *API) handOverRoutes() {
	account(a, "POST", "/account/hand-over", audit.KindHandOver, true, "A code by which a program of one's own gets a session, shown this once; it counts once, for a minute", 200, func(_ context.Context, v *visit, i *struct{ Body client.HandOver }) (*out[client.HandOverCode], error) {
		for _, s := range []int64{i.Body.IdleSeconds, i.Body.LifeSeconds} {
			if s < 0 || s > 0 && s < 60 {
				return nil, invalid("the session's time is out of range", "give 60 seconds or more")
			}
		}
		code, until, err := a.cfg.People.HandOver(v.session, i.Body.Challenge, seconds(i.Body.IdleSeconds), seconds(i.Body.LifeSeconds))
		if err != nil {
			return nil, err
		}
		return &out[client.HandOverCode]{client.HandOverCode{Code: code.ExposeString(), ExpiresAt: until.UTC().Truncate(time.Second)}}, nil
	})
	stranger(a, "POST", "/sign-in/hand-over", "Begin the session that somebody who is signed in hands over to this program", 200, a.takeOver)
}

// takeOver begins a session, records it, and only then gives its text away.
func (a *API) takeOver(ctx context.Context, v *visit, i *struct{ Body client.TakeOver }) (*out[client.SignedIn], error) {
	res, giver, err := a.cfg.People.TakeOver(ctx, authn.TakeOver{Code: i.Body.Code, Verifier: i.Body.Verifier, Source: v.source, Agent: v.agent,
		Admit: func(workspace string) error { return under(a.cfg.Directory.Snapshot(), v.request, workspace) }})
	if err != nil {
		if res.Reason != "" {
			a.refusedSignIn(ctx, v, res, err, particulars{"method": "handed over", "from": giver}.tidy())
		}
		return nil, err
	}
	if err := a.began(ctx, v, res, map[string]string{"id": res.Session.ID, "method": "handed over", "from": giver}); err != nil {
		return nil, err
	}
	return &out[client.SignedIn]{v.signedIn(res.Session, res.Text, false)}, nil
}

// began records a session that has begun. One that cannot be recorded ends: nobody has its text.
func (a *API) began(ctx context.Context, v *visit, res authn.Result, detail map[string]string) error {
	err := a.record(ctx, audit.Event{Kind: audit.KindSignIn, Workspace: res.Workspace.ID, RequestID: requestID(ctx), Principal: res.Principal.ID, PrincipalName: res.Principal.Name,
		SourceAddress: v.source.String(), Operation: "sign_in", Origin: string(protocol.OriginRelay), Decision: "allow", Status: "done", Detail: detail})
	if err != nil {
		if e := a.cfg.Directory.EndSession(context.WithoutCancel(ctx), "", res.Session.ID, ""); e != nil {
			a.cfg.Logger.Error("a session that could not be recorded stays until it expires; nobody has its text", "session", res.Session.ID, "error", e)
		}
		return err
	}
	v.workspace = res.Workspace
	return nil
}
