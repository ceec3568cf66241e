package api

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/mail"
)

// Cookie is the name of the cookie that holds a browser's session. The prefix binds it to this host, TLS and path / (RFC 6265bis).
const Cookie = "__Host-fairlead"

// credential takes what a caller shows: the one Authorization header (RFC 6750, 2.1), or the one cookie, never both.
func credential(r *http.Request) (header string, cookie bool, _ error) {
	vs, cs := r.Header.Values("Authorization"), r.CookiesNamed(Cookie)
	switch {
	case len(vs) == 1 && len(cs) == 0:
		return vs[0], false, nil
	case len(vs) == 0 && len(cs) == 1:
		return "Bearer " + cs[0].Value, true, nil
	}
	return "", false, unauthenticated()
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// fromHere tells whether a browser says that a request comes from the relay's own pages. A browser sets both headers itself, and
// no page can change them.
func fromHere(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		return false
	}
	o := r.Header.Get("Origin")
	if o == "" {
		return r.Header.Get("Sec-Fetch-Site") == "same-origin"
	}
	u, err := url.Parse(o)
	return err == nil && u.Scheme == "https" && u.Host == r.Host
}

// elsewhere tells whether a browser says that a request comes from another site. Programs send neither header.
func elsewhere(r *http.Request) bool {
	return (r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "") && !fromHere(r)
}

func crossSite() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: "sign_in.cross_site", Message: "the request comes from another site",
		Hint: "programs send the session in the Authorization header, and no cookie"}
}

func needs(what string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: client.RuleNeeds, Message: map[string]string{
		directory.NeedsCode:         "the session began without a code of your second factor",
		directory.NeedsSecondFactor: "the workspace demands a second factor, and you have none",
		directory.NeedsPassword:     "your password has expired",
		directory.NeedsPasskey:      "a passkey is wanted: show one that you have, or add one if you have none",
	}[what], Hint: map[string]string{
		directory.NeedsCode:         "sign in again: fairlead login --user",
		directory.NeedsSecondFactor: "fairlead second-factor add",
		directory.NeedsPassword:     "fairlead password",
		directory.NeedsPasskey:      "in a browser: the relay's page /account",
	}[what]}
}

func noAccount() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Message: "an API token has no account", Hint: "sign in: fairlead login --user NAME"}
}

func wantsStepUp() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: client.RuleStepUp, Message: "this wants a fresh proof that it is you", Hint: "fairlead confirm, then try again"}
}

func (v *visit) signedIn(t *directory.Session, text secret.Bytes, cookie bool) client.SignedIn {
	o := client.SignedIn{ID: t.ID, User: t.Principal.Name, ExpiresAt: t.Expires, Needs: t.Needs(time.Now()), Workspace: v.workspace.Name}
	if cookie {
		v.header.Set("Set-Cookie", cookieOf(text.ExposeString(), int(time.Until(t.Expires).Seconds())))
	} else {
		o.Session = text.ExposeString()
	}
	return o
}

// cookieOf is the header of the cookie; age 0 and less makes the browser forget it.
func cookieOf(value string, age int) string {
	return (&http.Cookie{Name: Cookie, Value: value, Path: "/", MaxAge: max(age, 0) - btoi(age <= 0), Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode}).String()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// register registers a route without a workspace in its path.
func register[I, O any](a *API, method, path, summary string, status int, anonymous bool, guard func(huma.Context, func(huma.Context)), f func(context.Context, *visit, *I) (*O, error)) {
	a.routes = append(a.routes, Route{Method: method, Path: path, Session: !anonymous, Anonymous: anonymous})
	op := operation(method, path, summary, status)
	if anonymous {
		op.Security = []map[string][]string{}
	}
	serve(a, op, guard, f)
}

// maxSignInBody bounds what somebody may send before it is known who it is.
const maxSignInBody = 16 << 10

// stranger registers a route for who has nothing to show yet.
func stranger[I, O any](a *API, method, path, summary string, status int, f func(context.Context, *visit, *I) (*O, error)) {
	register(a, method, path, summary, status, true, func(hc huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(hc)
		if err := takeBody(r, maxSignInBody); err != nil {
			a.fail(w, r, err)
			return
		}
		if elsewhere(r) {
			a.fail(w, r, crossSite())
			return
		}
		next(huma.WithValue(hc, keyVisit, &visit{source: a.source(r), request: r, header: w.Header(), entered: time.Now(), agent: program(r)}))
	}, f)
}

// account registers a route for a person's own account, which wants a session and no right in a workspace. A kind that is not
// empty is recorded, before and after. fresh: the session must have proven itself not long ago.
func account[I, O any](a *API, method, path string, kind audit.Kind, fresh bool, summary string, status int, f func(context.Context, *visit, *I) (*O, error)) {
	register(a, method, path, summary, status, false, func(hc huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(hc)
		v, err := a.enterWhole(r, "", "", maxSignInBody)
		if err == nil && v.session == nil {
			err = a.denied(r, v, noAccount())
		}
		if err == nil && fresh && !v.snap.FreshFor(v.session, time.Now()) {
			err = a.denied(r, v, wantsStepUp())
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		v.request, v.header = r, w.Header()
		if kind != "" {
			ev := a.event(r, v, kind)
			ev.Decision, ev.Target, ev.Detail = "allow", r.Method+" "+path, map[string]string{"id": v.session.ID}
			if err := a.record(r.Context(), ev); err != nil {
				a.fail(w, r, err)
				return
			}
			defer func() {
				ev.Detail = maps.Clone(ev.Detail)
				maps.Copy(ev.Detail, v.detail)
				a.outcome(ev, "", hc.Status())
				if hc.Status() < 400 && (kind == audit.KindFactor || kind == audit.KindPassword) {
					a.tellHome(r.Context(), ev, v.session.Person)
				}
			}()
		}
		next(huma.WithValue(hc, keyVisit, v))
	}, f)
	a.routes[len(a.routes)-1].Fresh = fresh
}

// outcome records how a change that was recorded before ended.
func (a *API) outcome(ev audit.Event, action authz.Action, status int) {
	ev.Status = "failed" // also when the handler panics
	if status >= 200 && status < 400 {
		ev.Status = "done"
	}
	if _, err := a.cfg.Directory.Snapshot().Workspace(ev.Workspace); err != nil && action == authz.WorkspaceOwn && ev.Status == "done" {
		// Its key is gone, so nothing more can be sealed into its log. The intent stands there.
		a.cfg.Logger.Warn("a workspace was destroyed", "request_id", ev.RequestID, "workspace", ev.Workspace, "by", ev.Principal)
		return
	}
	if _, err := a.cfg.Dispatch.Record(ev); err != nil {
		a.cfg.Logger.Error("the outcome could not be recorded", "request_id", ev.RequestID, "error", err)
	}
}

// program is what a caller says of itself, for the list of sessions: printable and short.
func program(r *http.Request) string {
	var out []rune
	for _, c := range r.UserAgent() {
		if unicode.IsPrint(c) && len(out) < 100 {
			out = append(out, c)
		}
	}
	return string(out)
}

// refusedSignIn records who was not let in, by the name of the user if there is one: what was typed may be a password. A flood is
// counted, as that of a token is.
func (a *API) refusedSignIn(ctx context.Context, v *visit, res authn.Result, err error, detail particulars) {
	if res.Workspace == nil { // no workspace, no log
		a.cfg.Logger.Debug("sign-in to a workspace that is not there", "request_id", requestID(ctx), "source", v.source)
		return
	}
	ev := audit.Event{Kind: audit.KindRefused, Workspace: res.Workspace.ID, RequestID: requestID(ctx), SourceAddress: v.source.String(), Operation: "sign_in",
		Origin: string(protocol.OriginRelay), Decision: "deny", Code: string(protocol.AsError(err).Code), Reason: res.Reason, Detail: detail}
	who := authz.Principal{Workspace: res.Workspace.ID, Token: "sign-in"}
	if res.Principal != nil {
		ev.Principal, ev.PrincipalName = res.Principal.ID, res.Principal.Name
	}
	a.cfg.Dispatch.Denied(ctx, who, ev)
}

func (a *API) signInRoutes() {
	stranger(a, "POST", "/sign-in", "Begin a session; who has a second factor sends a code, too", 200, a.signIn)
	stranger(a, "POST", "/sign-in/first", "Set a password by a one-time code; then sign in", 204, func(ctx context.Context, v *visit, i *struct{ Body client.FirstPassword }) (*none, error) {
		var ev audit.Event
		var person *directory.Person // as it was
		if err := under(a.cfg.Directory.Snapshot(), v.request, i.Body.Workspace); err != nil {
			return nil, err
		}
		res, err := a.cfg.People.SetFirst(ctx, i.Body.Workspace, i.Body.User, i.Body.Code, secret.FromString(i.Body.Password), v.source, func(res authn.Result) error {
			person = res.Workspace.PersonOf(res.Principal.ID)
			ev = audit.Event{Kind: audit.KindPassword, Workspace: res.Workspace.ID, RequestID: requestID(ctx), Principal: res.Principal.ID, PrincipalName: res.Principal.Name,
				SourceAddress: v.source.String(), Operation: "sign_in", Origin: string(protocol.OriginRelay), Decision: "allow", Detail: map[string]string{"method": "one-time code"}}
			return a.record(ctx, ev)
		})
		if ev.Kind != "" {
			status := http.StatusOK
			if err != nil {
				status = protocol.AsError(err).Code.Status()
			}
			if err == nil && !person.PasswordSet.IsZero() {
				a.notify(v, person, person.Email, mail.PasswordChanged, res.Workspace.Name, res.Principal.Name)
				ev.Detail = both(ev.Detail, v.detail)
			}
			if a.outcome(ev, "", status); err == nil {
				a.tellHome(ctx, ev, person)
			}
		}
		if err != nil && res.Reason != "" {
			a.refusedSignIn(ctx, v, res, err, particulars{"method": "one-time code"})
		}
		return nil, err
	})
	account(a, "POST", "/sign-out", audit.KindSignOut, false, "End the session", 204, func(ctx context.Context, v *visit, _ *none) (*none, error) {
		v.header.Set("Set-Cookie", cookieOf("", 0))
		return nil, a.cfg.Directory.EndSession(ctx, "", v.session.ID, v.session.Person.ID)
	})
	account(a, "GET", "/account", "", false, "What a person sees of itself", 200, func(_ context.Context, v *visit, _ *none) (*out[client.Account], error) {
		return a.account(v), nil
	})
	a.ownEmailRoute()
	account(a, "POST", "/account/password", audit.KindPassword, false, "Change the password; all other sessions end", 200, func(ctx context.Context, v *visit, i *struct{ Body client.ChangePassword }) (*out[client.SignedIn], error) {
		if p := v.session.Person; (!p.SecondFactor.IsZero() || p.HoldsPasskey()) && !v.snap.FreshFor(v.session, time.Now()) {
			return nil, a.deniedIn(ctx, v, wantsStepUp()) // a password that was guessed takes no more than itself
		}
		t, text, err := a.cfg.People.ChangePassword(ctx, v.session, v.source, secret.FromString(i.Body.Password), secret.FromString(i.Body.NewPassword))
		if err != nil {
			return nil, err
		}
		a.notifyOwn(v, mail.PasswordChanged)
		return &out[client.SignedIn]{v.signedIn(t, text, v.cookie)}, nil
	})
	account(a, "POST", "/account/confirm", audit.KindConfirm, false, "Prove again that it is you, before a dangerous act; the session has a new text", 200, func(ctx context.Context, v *visit, i *struct{ Body client.Confirm }) (*out[client.SignedIn], error) {
		if i.Body.Ceremony != "" {
			return a.confirmPasskey(ctx, v, i.Body)
		}
		method := factorOf(i.Body.Code)
		if v.session.Person.SecondFactor.IsZero() {
			method = methodPassword
		}
		v.tell(particulars{"method": method})
		t, text, err := a.cfg.People.Confirm(ctx, v.session, v.source, secret.FromString(i.Body.Password), i.Body.Code)
		if err != nil {
			return nil, err
		}
		return &out[client.SignedIn]{v.signedIn(t, text, v.cookie)}, nil
	})
	a.factorRoutes()
	a.passkeyRoutes()
	a.ownTokenRoutes()
	account(a, "GET", "/account/sessions", "", false, "The person's own sessions, in all workspaces", 200, func(_ context.Context, v *visit, _ *none) (*out[client.List[client.Session]], error) {
		l := v.snap.SessionsOf(v.session.Person)
		if v.session.Needs(time.Now()) != "" { // where else the person belongs is not for who knows the password alone
			l = slices.DeleteFunc(slices.Clone(l), func(s *directory.Session) bool { return s.Workspace != v.session.Workspace })
		}
		return &out[client.List[client.Session]]{sessions(v, l)}, nil
	})
	account(a, "DELETE", "/account/sessions", audit.KindSessionEnd, false, "End all own sessions but this one", 204, func(ctx context.Context, v *visit, _ *none) (*none, error) {
		if !v.session.Strong() {
			return nil, a.deniedIn(ctx, v, wantsStepUp())
		}
		return nil, a.cfg.Directory.EndSessions(ctx, v.session.Person, v.session.ID)
	})
	account(a, "DELETE", "/account/sessions/{id}", audit.KindSessionEnd, false, "End one of the own sessions", 204, func(ctx context.Context, v *visit, i *struct {
		ID string `path:"id"`
	}) (*none, error) {
		if i.ID != v.session.ID && !v.session.Strong() {
			return nil, a.deniedIn(ctx, v, wantsStepUp())
		}
		return nil, a.cfg.Directory.EndSession(ctx, "", i.ID, v.session.Person.ID)
	})
}

// signIn begins a session, records it, and only then gives its text away.
func (a *API) signIn(ctx context.Context, v *visit, i *struct{ Body client.SignIn }) (*out[client.SignedIn], error) {
	b := i.Body
	if err := under(a.cfg.Directory.Snapshot(), v.request, b.Workspace); err != nil {
		return nil, err
	}
	res, err := a.cfg.People.SignIn(ctx, authn.SignIn{Workspace: b.Workspace, User: b.User, Password: secret.FromString(b.Password), Code: b.Code, Source: v.source, Agent: v.agent,
		Idle: seconds(b.IdleSeconds), Life: seconds(b.LifeSeconds)})
	method := methodPassword
	if b.Code != "" && (err != nil || res.Session.ByCode) {
		method += " and " + factorOf(b.Code)
	}
	return a.signedInBy(ctx, v, res, err, method, b.Cookie)
}

// signedInBy records what came of a sign-in by a method, and gives the session away if one began.
func (a *API) signedInBy(ctx context.Context, v *visit, res authn.Result, err error, method string, cookie bool) (*out[client.SignedIn], error) {
	detail := particulars{"method": method}
	if res.Passkey != nil && res.Principal != nil { // else it is nobody's of the workspace
		detail = both(detail, passkeysTold(res.Passkey))
	}
	if err != nil {
		if res.Reason != "" {
			a.refusedSignIn(ctx, v, res, err, detail)
		}
		a.tellMarked(ctx, v, res)
		return nil, err
	}
	detail["id"] = res.Session.ID
	if err := a.began(ctx, v, res, detail); err != nil {
		return nil, err
	}
	return &out[client.SignedIn]{v.signedIn(res.Session, res.Text, cookie)}, nil
}
