package clienttest

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// What the one person of the relay, "anna", signs in with, and the text of each session.
const (
	Password = " right horse "
	Code     = "123456"
	OneTime  = "fli_sample"
	HandOver = "flh_sample"
	Session  = "fls_0123456789012345678901234567890123456789012"
)

// peopleRoutes are those of people and of what they sign in with.
func (r *Relay) peopleRoutes(mux *http.ServeMux, handle func(pattern string, h func(w http.ResponseWriter, q *http.Request))) {
	signedIn := client.SignedIn{ID: "ses_1", Session: Session, User: "anna", Workspace: "default", ExpiresAt: Time}
	factor := false
	refuse := func(w http.ResponseWriter, code protocol.Code, rule, message string) {
		Fail(w, &protocol.Error{Code: code, Rule: rule, Message: message, Origin: protocol.OriginRelay})
	}
	plain := func(pattern string, h func(w http.ResponseWriter, q *http.Request)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, q *http.Request) {
			r.Lock()
			defer r.Unlock()
			h(w, q)
		})
	}
	const base = client.BasePath
	plain("POST "+base+"/sign-in", func(w http.ResponseWriter, q *http.Request) {
		var s client.SignIn
		_ = json.NewDecoder(q.Body).Decode(&s)
		switch {
		case s.User != "anna" || s.Password != Password || s.Code != "" && s.Code != Code:
			refuse(w, protocol.CodeUnauthenticated, "", "the relay does not let you in")
		case factor && s.Code == "":
			refuse(w, protocol.CodeUnauthenticated, client.RuleCode, "a code of the second factor is wanted")
		default:
			answer(w, 200, signedIn)
		}
	})
	plain("POST "+base+"/sign-in/first", func(w http.ResponseWriter, q *http.Request) {
		var f client.FirstPassword
		_ = json.NewDecoder(q.Body).Decode(&f)
		if f.Code != OneTime {
			refuse(w, protocol.CodeUnauthenticated, "", "the relay does not let you in")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	plain("POST "+base+"/sign-in/hand-over", func(w http.ResponseWriter, q *http.Request) {
		var o client.TakeOver
		_ = json.NewDecoder(q.Body).Decode(&o)
		if o.Code != HandOver || len(o.Verifier) < 43 {
			refuse(w, protocol.CodeUnauthenticated, "", "the relay does not let you in")
			return
		}
		answer(w, 200, signedIn)
	})
	plain("POST "+base+"/account/hand-over", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, client.HandOverCode{Code: HandOver, ExpiresAt: Time})
	})
	ok := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	plain("POST "+base+"/sign-out", ok)
	plain("GET "+base+"/account", func(w http.ResponseWriter, _ *http.Request) {
		a := client.Account{Person: "per_1", User: "anna", Workspace: "default", PasswordSetAt: Time, Needs: client.NeedsSecondFactor}
		if factor {
			a.SecondFactorSince, a.RecoveryCodes, a.Needs = &Time, 2, ""
		}
		answer(w, 200, a)
	})
	plain("POST "+base+"/account/password", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, signedIn) })
	plain("POST "+base+"/account/confirm", func(w http.ResponseWriter, q *http.Request) {
		var c client.Confirm
		_ = json.NewDecoder(q.Body).Decode(&c)
		if factor && c.Code != Code || !factor && c.Password != Password {
			refuse(w, protocol.CodeDenied, "", "that is not the right answer")
			return
		}
		answer(w, 200, signedIn)
	})
	plain("POST "+base+"/account/second-factor", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, client.NewSecondFactor{Secret: "GEZDGNBV", URI: "otpauth://totp/Fairlead:anna?secret=GEZDGNBV"})
	})
	plain("PUT "+base+"/account/second-factor", func(w http.ResponseWriter, q *http.Request) {
		var p client.ProveSecondFactor
		_ = json.NewDecoder(q.Body).Decode(&p)
		if p.Code != Code {
			refuse(w, protocol.CodeDenied, "", "that is not the right answer")
			return
		}
		factor = true
		answer(w, 200, client.RecoveryCodes{Codes: []string{"aaaa-bbbb", "cccc-dddd"}, Session: &signedIn})
	})
	plain("DELETE "+base+"/account/second-factor", func(w http.ResponseWriter, q *http.Request) { factor = false; ok(w, q) })
	plain("POST "+base+"/account/recovery-codes", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, client.RecoveryCodes{Codes: []string{"eeee-ffff"}})
	})
	passkeys := []client.Passkey{{ID: "pky_1", Label: "laptop\x1b[2J", CreatedAt: Time, LastUsedAt: &Time, BackupEligible: true, BackedUp: true, Bound: true}, {ID: "pky_2", Label: "old key", CreatedAt: Time, SuspectSince: &Time, Bound: true}}
	plain("GET "+base+"/account/passkeys", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, passkeys) })
	plain("DELETE "+base+"/account/passkeys/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &passkeys, "passkey", func(k client.Passkey) bool { return k.ID == q.PathValue("id") })
	})
	sessions := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, client.List[client.Session]{Items: []client.Session{{ID: "ses_1", User: "anna", Workspace: "default", Source: "127.0.0.1", Agent: "evil\x1b[2J", CreatedAt: Time, LastUsedAt: Time, EndsAt: Time, Current: true}}})
	}
	end := func(w http.ResponseWriter, q *http.Request) {
		if q.PathValue("id") == "ses_1" {
			ok(w, q)
			return
		}
		Fail(w, missing("session"))
	}
	plain("GET "+base+"/account/sessions", sessions)
	plain("DELETE "+base+"/account/sessions", ok)
	plain("DELETE "+base+"/account/sessions/{id}", end)
	var own []client.Token
	plain("GET "+base+"/account/tokens", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, own) })
	plain("POST "+base+"/account/tokens", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewPersonalToken
		_ = json.NewDecoder(q.Body).Decode(&n)
		own = append(own, client.Token{ID: "tok_own", Name: n.Name, Personal: true, Only: n.Only, CreatedAt: Time, LastUsedAt: &Time, LastUsedFrom: "192.0.2.7"})
		answer(w, 201, client.CreatedToken{ID: "tok_own", Name: n.Name, Token: "flt_own", Only: n.Only, ExpiresAt: &Time})
	})
	plain("DELETE "+base+"/account/tokens/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &own, "token", func(t client.Token) bool { return t.ID == q.PathValue("id") })
	})
	handle("GET /sessions", sessions)
	handle("DELETE /sessions/{id}", end)

	users := []client.User{{ID: "usr_1", Name: "anna", Roles: []string{"admin"}, HomeHere: true, PasswordSet: true, Sessions: 1, CreatedAt: Time}}
	handle("GET /users", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, users) })
	handle("POST /users", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewUser
		_ = json.NewDecoder(q.Body).Decode(&n)
		u := client.UserCode{ID: "usr_2", Name: n.Name}
		switch {
		case n.Email != "" && (n.Send == nil || *n.Send):
			u.Sent, u.Email, u.ExpiresAt = true, "b***@example.com", &Time
		case n.Person == "":
			u.Code, u.ExpiresAt = OneTime, &Time
		}
		users = append(users, client.User{ID: u.ID, Name: n.Name, Roles: n.Roles, InvitedUntil: &Time, CreatedAt: Time})
		answer(w, 201, u)
	})
	known := func(w http.ResponseWriter, q *http.Request) bool {
		for _, u := range users {
			if u.Name == q.PathValue("id") || u.ID == q.PathValue("id") {
				return true
			}
		}
		Fail(w, missing("user"))
		return false
	}
	handle("POST /users/{id}/code", func(w http.ResponseWriter, q *http.Request) {
		if known(w, q) {
			answer(w, 201, client.UserCode{ID: "usr_1", Name: q.PathValue("id"), Code: OneTime, ExpiresAt: &Time})
		}
	})
	handle("PUT /users/{id}/email", func(w http.ResponseWriter, q *http.Request) {
		if known(w, q) {
			answer(w, 200, client.User{ID: "usr_1", Name: q.PathValue("id"), Email: "b***@example.com", CreatedAt: Time})
		}
	})
	for _, pattern := range []string{"POST /users/{id}/disable", "POST /users/{id}/enable", "DELETE /users/{id}", "DELETE /users/{id}/second-factor", "DELETE /users/{id}/sessions"} {
		handle(pattern, func(w http.ResponseWriter, q *http.Request) {
			if known(w, q) {
				ok(w, q)
			}
		})
	}
	policy := client.SignInPolicy{}.InForce()
	policies := 1
	tell := func(w http.ResponseWriter) {
		w.Header().Set("ETag", fmt.Sprintf(`"p%d"`, policies))
		answer(w, 200, policy)
	}
	handle("GET /sign-in-policy", func(w http.ResponseWriter, _ *http.Request) { tell(w) })
	handle("PUT /sign-in-policy", func(w http.ResponseWriter, q *http.Request) {
		if m := q.Header.Get("If-Match"); m != "" && m != fmt.Sprintf(`"p%d"`, policies) {
			refuse(w, protocol.CodePrecondition, "", "the sign-in policy is another by now")
			return
		}
		policy = client.SignInPolicy{}
		_ = json.NewDecoder(q.Body).Decode(&policy)
		policy = policy.InForce()
		policies++
		tell(w)
	})
}
