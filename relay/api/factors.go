package api

import (
	"context"
	"strings"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authn"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/totp"
)

// What somebody proved itself by, in the record.
const (
	methodPassword = "password"
	methodTOTP     = "totp"
	methodRecovery = "recovery code"
	methodPasskey  = "passkey"
)

// factorOf tells what a code is taken for.
func factorOf(code string) string {
	if len(strings.TrimSpace(code)) == totp.Digits {
		return methodTOTP
	}
	return methodRecovery
}

// passkeysTold names passkeys for the record. A label is what a person chose, so it is sensitive.
func passkeysTold(l ...*directory.Passkey) particulars {
	var ids, labels []string
	for _, k := range l {
		ids, labels = append(ids, k.ID), append(labels, k.Label)
	}
	return particulars{"passkey": join(ids), "name": join(labels)}
}

// tellHome tells the log of a person's home workspace, which keeps its credentials, of a change of them that was made in a session of
// another workspace. Which one that is, is not for the home to know.
func (a *API) tellHome(ctx context.Context, ev audit.Event, p *directory.Person) {
	home, pr := a.cfg.Directory.Snapshot().AtHome(p)
	if pr == nil || home.ID == ev.Workspace {
		return
	}
	ev.Workspace, ev.Principal, ev.PrincipalName = home.ID, pr.ID, pr.Name
	ev.Status, ev.Reason, ev.Detail = "done", "in another workspace that the person belongs to", both(ev.Detail, nil)
	delete(ev.Detail, "id") // of the session there
	a.recordDone(ctx, ev)
}

// tellMarked tells the home of a passkey that was marked where it was shown to another workspace.
func (a *API) tellMarked(ctx context.Context, v *visit, res authn.Result) {
	if !res.Marked {
		return
	}
	p := a.cfg.Directory.Snapshot().Person(res.Passkey.Person)
	if p == nil {
		return
	}
	told := passkeysTold(res.Passkey)
	told["state"] = "marked: there may be a copy"
	a.tellHome(ctx, audit.Event{Kind: audit.KindFactor, Workspace: res.Workspace.ID, RequestID: requestID(ctx), SourceAddress: v.source.String(), Operation: "sign_in",
		Origin: string(protocol.OriginRelay), Detail: told}, p)
}
