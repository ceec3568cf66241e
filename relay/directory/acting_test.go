package directory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// desk is a workspace with a help desk, which may act for analysts and nobody above, and an analyst.
type desk struct {
	t     *testing.T
	d     *directory.Directory
	owner directory.By
	help  directory.By
	token *directory.Token // of the help desk
	anna  *directory.Principal
	code  secret.Bytes // of anna's invitation, by the help desk
}

func newDesk(t *testing.T, change ...func(*directory.Config)) *desk {
	t.Helper()
	c := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	for _, f := range change {
		f(&c)
	}
	h := &desk{t: t, d: reopen(t, c), owner: directory.By{ID: in.Principal}}
	_, err = h.d.CreateRole(t.Context(), h.owner, "default", "desk", []authz.Action{authz.UsersManage, authz.UsersRead})
	must(t, err)
	h.token, _, err = h.d.CreateToken(t.Context(), authz.Principal{ID: in.Principal}, "default", directory.NewToken{Name: "help", Roles: []authz.Role{authz.Analyst}})
	must(t, err)
	h.help = directory.By{ID: h.token.Principal.ID, Token: h.token.ID}
	h.give(h.token.Principal.ID, "desk")
	h.anna, h.code, err = h.d.CreateUser(t.Context(), h.help, "default", directory.NewUser{Name: "anna", Roles: []authz.Role{authz.Analyst}, Email: "anna@example.com", Life: directory.MaxInviteLife})
	must(t, err)
	return h
}

func (h *desk) give(principal, role string) *directory.Grant {
	h.t.Helper()
	g, err := h.d.CreateGrant(h.t.Context(), h.owner, "default", directory.NewGrant{Principal: principal, Role: role})
	must(h.t, err)
	return g
}

func (h *desk) person() *directory.Person { return workspace(h.t, h.d, "default").PersonOf(h.anna.ID) }

// take uses a code, and gives what came of it.
func (h *desk) take(code secret.Bytes) error {
	h.t.Helper()
	v, err := h.d.NewPasswordVerifier(aPassword)
	must(h.t, err)
	judged := h.d.JudgeCode(h.person(), code.ExposeString())
	err = h.d.TakeCode(context.Background(), h.person(), code.ExposeString(), v)
	if (judged == nil) != (err == nil) {
		h.t.Errorf("judged %v, taken %v", judged, err)
	}
	return err
}

func (h *desk) void(what string, err error) {
	h.t.Helper()
	if !errors.Is(err, directory.ErrVoid) || !errors.Is(err, directory.ErrCode) {
		h.t.Errorf("%s: %v", what, err)
	}
}

// signIn begins a session of somebody with aPassword.
func (h *desk) signIn(p *directory.Principal, in string) *directory.Session {
	h.t.Helper()
	ok, _, verifier := h.d.VerifyPassword(workspace(h.t, h.d, in).PersonOf(p.ID), aPassword)
	if !ok {
		h.t.Fatal("the password is another")
	}
	s, _, err := h.d.BeginSession(h.t.Context(), in, directory.NewSession{Principal: p.ID, Verifier: verifier})
	must(h.t, err)
	return s
}

// What somebody gave to a small user is nothing to hold on to: who gave a code is asked again when it is used.
func TestACodeIsVoidWhenItsGiverMayNotActForThePersonAnyMore(t *testing.T) {
	for what, upset := range map[string]func(h *desk){
		"the user became an admin": func(h *desk) { h.give(h.anna.ID, "admin") },
		"by a team": func(h *desk) {
			_, err := h.d.CreateTeam(t.Context(), "default", "chiefs")
			must(t, err)
			_, err = h.d.CreateGrant(t.Context(), h.owner, "default", directory.NewGrant{Team: "chiefs", Role: "operator"})
			must(t, err)
			_, err = h.d.AddMember(t.Context(), h.owner, "default", "chiefs", h.anna.ID)
			must(t, err)
		},
		"the giver is disabled": func(h *desk) { must(t, h.d.SetPrincipalDisabled(t.Context(), "default", h.help.ID, true)) },
		"the giver is gone":     func(h *desk) { must(t, h.d.DeleteService(t.Context(), h.owner, "default", h.help.ID)) },
		"the token that gave it was revoked": func(h *desk) {
			must(t, h.d.RevokeToken(t.Context(), "default", h.token.ID))
		},
		"the giver manages users no more": func(h *desk) {
			for _, g := range workspace(t, h.d, "default").Grants {
				if g.Principal != nil && g.Principal.ID == h.help.ID && g.Role != authz.Analyst {
					must(t, h.d.DeleteGrant(t.Context(), h.owner, "default", g.ID))
				}
			}
		},
		"the user rules elsewhere": func(h *desk) { h.elsewhere(authz.Admin) },
		"the user is elsewhere":    func(h *desk) { h.elsewhere(authz.Analyst) },
	} {
		t.Run(what, func(t *testing.T) {
			h := newDesk(t)
			upset(h)
			h.void("the invitation", h.take(h.code))
			if !h.person().PasswordSet.IsZero() {
				t.Error("a password was set")
			}
			// Another's code is as good as its giver, and ends the void one.
			code, _, err := h.d.IssueCode(t.Context(), h.owner, "default", h.anna.ID, 0)
			must(t, err)
			must(t, h.take(code))
		})
	}
	t.Run("a reset", func(t *testing.T) {
		h := newDesk(t)
		must(t, h.take(h.code))
		code, _, err := h.d.IssueCode(t.Context(), h.help, "default", h.anna.ID, 0)
		must(t, err)
		g := h.give(h.anna.ID, "admin")
		h.void("the reset", h.take(code))
		must(t, h.d.DeleteGrant(t.Context(), h.owner, "default", g.ID))
		must(t, h.take(code)) // they may again, and the code is open yet
	})
	t.Run("the host's stays good", func(t *testing.T) {
		h := newDesk(t)
		code, err := h.d.CreateAdminUser(t.Context(), "default", "anna", 0)
		must(t, err)
		h.give(h.anna.ID, "owner")
		must(t, h.take(code))
		code, err = h.d.CreateAdminUser(t.Context(), "default", "carl", 0)
		must(t, err)
		_, carl := workspace(t, h.d, "default").User("carl")
		v, err := h.d.NewPasswordVerifier(aPassword)
		must(t, err)
		must(t, h.d.TakeCode(t.Context(), carl, code.ExposeString(), v))
	})
}

// A session that was stolen gives what it likes: with a new password of its person, all that counts no more.
func TestANewPasswordVoidsWhatItsPersonGaveInSessions(t *testing.T) {
	ctx := t.Context()
	h := newDesk(t)
	must(t, h.take(h.code))
	h.give(h.anna.ID, "admin")
	by := directory.By{ID: h.anna.ID, Token: h.signIn(h.anna, "default").ID}
	const to = "bert@example.com"
	bert, invitation, err := h.d.CreateUser(ctx, by, "default", directory.NewUser{Name: "bert", Roles: []authz.Role{authz.Analyst}, Email: to})
	must(t, err)
	person := func() *directory.Person { return workspace(t, h.d, "default").PersonOf(bert.ID) }
	reachable := func() bool { return h.d.Snapshot().Reachable(workspace(t, h.d, "default"), bert.ID) }
	must(t, h.d.JudgeCode(person(), invitation.ExposeString()))
	renew := func() {
		t.Helper()
		_, _, was := h.d.VerifyPassword(h.person(), aPassword)
		next, err := h.d.NewPasswordVerifier(aPassword) // takes longer than the millisecond that times are kept in
		must(t, err)
		must(t, h.d.SetPassword(ctx, h.person(), was, next, ""))
	}
	renew()
	h.void("the invitation", h.d.JudgeCode(person(), invitation.ExposeString()))
	if reachable() {
		t.Error("the address counts")
	}
	_, _, err = h.d.MailCode(ctx, h.owner, "default", bert.ID, 0, to)
	want(t, err, protocol.CodeConflict)
	// What is given after it counts, by code and address.
	by.Token = h.signIn(h.anna, "default").ID
	_, err = h.d.SetEmail(ctx, by, "default", bert.ID, to)
	must(t, err)
	code, _, err := h.d.MailCode(ctx, by, "default", bert.ID, 0, to)
	must(t, err)
	must(t, h.d.JudgeCode(person(), code.ExposeString()))
	renew()
	h.void("a reset", h.d.JudgeCode(person(), code.ExposeString()))
	if reachable() {
		t.Error("the address that was set again counts")
	}
}

// elsewhere makes anna a user of another workspace, too.
func (h *desk) elsewhere(role authz.Role) (workspace, principal string) {
	h.t.Helper()
	o, err := h.d.CreateWorkspace(h.t.Context(), "other")
	must(h.t, err)
	first, _, err := h.d.CreateOwnerToken(h.t.Context(), o.ID, "owner", 0)
	must(h.t, err)
	p, _, err := h.d.CreateUser(h.t.Context(), directory.By{ID: first.Principal.ID}, o.ID, directory.NewUser{Name: "anna", Roles: []authz.Role{role}, Person: h.person().ID})
	must(h.t, err)
	return o.ID, p.ID
}

// Who has a password needs no code that counts for days.
func TestACodeForWhoHasAPasswordEndsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDesk(t)
		if left := time.Until(h.person().InvitedUntil); left < directory.MaxInviteLife-time.Minute {
			t.Errorf("an invitation counts for %v", left)
		}
		must(t, h.take(h.code))
		_, until, err := h.d.IssueCode(t.Context(), h.help, "default", h.anna.ID, directory.MaxInviteLife)
		must(t, err)
		if left := time.Until(until); left > directory.ResetLife || left < directory.ResetLife-time.Second || !until.Equal(h.person().InvitedUntil) {
			t.Errorf("a reset counts for %v", left)
		}
		_, until, err = h.d.IssueCode(t.Context(), h.help, "default", h.anna.ID, time.Minute)
		must(t, err)
		if left := time.Until(until); left > time.Minute {
			t.Errorf("asked for a minute: %v", left)
		}
		code, err := h.d.CreateAdminUser(t.Context(), "default", "anna", 24*time.Hour)
		must(t, err)
		time.Sleep(directory.ResetLife) // the bubble's clock
		if err := h.take(code); !errors.Is(err, directory.ErrCode) {
			t.Error("the host's code outlives a reset's time:", err)
		}
	})
}

// A code goes to no address that was set by somebody who may not act for the user now, nor counts if it went to one.
func TestNoCodeGoesToAnAddressOfWhoMayNotActForThePerson(t *testing.T) {
	h := newDesk(t)
	const to = "anna@example.com"
	mail := func(to string) (secret.Bytes, error) {
		c, _, err := h.d.MailCode(t.Context(), h.owner, "default", h.anna.ID, 0, to)
		return c, err
	}
	_, err := mail("eve@example.com")
	want(t, err, protocol.CodeConflict)
	code, err := mail(to)
	must(t, err)
	h.give(h.anna.ID, "admin")
	h.void("an owner's code that went to the desk's address", h.take(code))
	_, err = mail(to)
	want(t, err, protocol.CodeConflict)
	if s := h.d.Snapshot(); s.Reachable(workspace(t, h.d, "default"), h.anna.ID) {
		t.Error("the address counts")
	}
	if _, err := h.d.SetEmail(t.Context(), h.help, "default", h.anna.ID, to); protocol.AsError(err).Code != protocol.CodeDenied {
		t.Error(err)
	}
	was, err := h.d.SetEmail(t.Context(), h.owner, "default", h.anna.ID, to) // looked at, and set again
	if err != nil || was != to {
		t.Fatal(was, err)
	}
	code, err = mail(to)
	must(t, err)
	must(t, h.take(code))
}

// Who may act for a user is judged on the state that is changed, not on what was read before.
func TestActingForAUserIsJudgedByTheNewestState(t *testing.T) {
	var c directory.Config
	h := newDesk(t, func(dc *directory.Config) { dc.Poll, dc.StaleAfter = time.Hour, time.Hour; c = *dc })
	must(t, h.take(h.code))
	session := h.signIn(h.anna, "default")
	second := reopen(t, c)
	for what, f := range map[string]func() error{
		"a code": func() error { _, _, err := h.d.IssueCode(t.Context(), h.help, "default", h.anna.ID, 0); return err },
		"an address": func() error {
			_, err := h.d.SetEmail(t.Context(), h.help, "default", h.anna.ID, "eve@example.com")
			return err
		},
		"second factor": func() error { return h.d.ResetSecondFactor(t.Context(), h.help, "default", h.anna.ID) },
		"sessions":      func() error { return h.d.EndSessionsBy(t.Context(), h.help, "default", h.anna.ID) },
		"a session":     func() error { return h.d.EndSessionBy(t.Context(), h.help, "default", session.ID) },
		"disable":       func() error { return h.d.SetUserDisabled(t.Context(), h.help, "default", h.anna.ID, true) },
		"remove":        func() error { _, err := h.d.RemoveUserBy(t.Context(), h.help, "default", h.anna.ID); return err },
	} {
		g, err := second.CreateGrant(t.Context(), h.owner, "default", directory.NewGrant{Principal: h.anna.ID, Role: "operator"}) // the first has not seen it
		must(t, err)
		if err := f(); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Errorf("%s of who is an admin by now: %v", what, err)
		}
		must(t, second.DeleteGrant(t.Context(), h.owner, "default", g.ID))
	}
	if h.d.Snapshot().Session(session.ID) == nil {
		t.Error("the session was ended")
	}
	other, _ := h.elsewhere(authz.Analyst)
	want(t, h.d.EndSessionBy(t.Context(), h.owner, other, session.ID), protocol.CodeNotFound)
	want(t, h.d.EndSessionBy(t.Context(), h.owner, "default", "ses_none"), protocol.CodeNotFound)
	must(t, h.d.EndSessionBy(t.Context(), h.owner, "default", session.ID))
	session = h.signIn(h.anna, "default")
	must(t, h.d.EndSessionsBy(t.Context(), h.owner, "default", h.anna.ID))
	if h.d.Snapshot().Session(session.ID) != nil {
		t.Error("the session was not ended")
	}
}

// J4: an account that reaches other workspaces is an admin's affair at home, and where it rules in one, an owner's.
func TestWhoManagesUsersActsForNobodyWhoReachesFurther(t *testing.T) {
	ctx := t.Context()
	admin := func(h *desk) directory.By {
		tok, _, err := h.d.CreateAdminToken(ctx, "default", "an admin", 0)
		must(t, err)
		return directory.By{ID: tok.Principal.ID}
	}
	acts := func(h *desk, by directory.By) (far, near []error) {
		_, _, code := h.d.IssueCode(ctx, by, "default", h.anna.ID, 0)
		_, address := h.d.SetEmail(ctx, by, "default", h.anna.ID, "a2@example.com")
		return []error{code, address, h.d.ResetSecondFactor(ctx, by, "default", h.anna.ID)},
			[]error{h.d.SetUserDisabled(ctx, by, "default", h.anna.ID, true), h.d.SetUserDisabled(ctx, by, "default", h.anna.ID, false), h.d.EndSessionsBy(ctx, by, "default", h.anna.ID)}
	}
	for _, c := range []struct {
		elsewhere       authz.Role
		desk, far, near bool // of the help desk for everything; of an admin
	}{
		{elsewhere: "", desk: true, far: true, near: true},
		{elsewhere: authz.Analyst, far: true, near: true},
		{elsewhere: authz.Operator, far: true, near: true},
		{elsewhere: authz.Admin, near: true},
		{elsewhere: authz.Owner, near: true},
	} {
		t.Run("elsewhere "+string(c.elsewhere), func(t *testing.T) {
			h := newDesk(t)
			if c.elsewhere != "" {
				h.elsewhere(c.elsewhere)
			}
			check := func(who string, by directory.By, far, near bool) {
				t.Helper()
				fars, nears := acts(h, by)
				for i, l := range [][]error{fars, nears} {
					for n, err := range l {
						if may := []bool{far, near}[i]; may != (err == nil) || !may && protocol.AsError(err).Code != protocol.CodeDenied {
							t.Errorf("%s, %d.%d: %v", who, i, n, err)
						}
					}
				}
			}
			check("the help desk", h.help, c.desk, c.desk)
			a := admin(h)
			check("an admin", a, c.far, c.near)
			check("an owner", h.owner, true, true)
			if !c.desk {
				if _, err := h.d.RemoveUserBy(ctx, h.help, "default", h.anna.ID); protocol.AsError(err).Code != protocol.CodeDenied {
					t.Error("removed at home by the help desk:", err)
				}
			}
			if _, err := h.d.RemoveUserBy(ctx, a, "default", h.anna.ID); err != nil {
				t.Error("removed at home by an admin:", err)
			}
		})
	}
	t.Run("as a guest", func(t *testing.T) { // what an admin there does stays there
		h := newDesk(t)
		other, there := h.elsewhere(authz.Analyst)
		tok, _, err := h.d.CreateAdminToken(ctx, other, "theirs", 0)
		must(t, err)
		by := directory.By{ID: tok.Principal.ID}
		must(t, h.d.SetUserDisabled(ctx, by, other, there, true))
		if _, _, err := h.d.IssueCode(ctx, by, other, there, 0); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Error(err)
		}
		gone, err := h.d.RemoveUserBy(ctx, by, other, there)
		if err != nil || len(gone) != 0 || h.person() == nil {
			t.Error(gone, err)
		}
	})
}

// Whatever a person is made elsewhere, the admins of its home can take it out: there it may be that they have no owner.
func TestNoOtherWorkspaceKeepsAPersonFromTheAdminsOfItsHome(t *testing.T) {
	ctx := t.Context()
	h := newDesk(t)
	tok, _, err := h.d.CreateAdminToken(ctx, "default", "an admin", 0)
	must(t, err)
	by := directory.By{ID: tok.Principal.ID}
	other, there := h.elsewhere(authz.Owner)
	if _, _, err := h.d.IssueCode(ctx, by, "default", h.anna.ID, 0); protocol.AsError(err).Code != protocol.CodeDenied {
		t.Error("an admin at home becomes an owner elsewhere:", err)
	}
	must(t, h.d.SetUserDisabled(ctx, by, "default", h.anna.ID, true))
	gone, err := h.d.RemoveUserBy(ctx, by, "default", h.anna.ID)
	if err != nil || len(gone) != 1 || gone[0].ID != there || h.person() != nil || workspace(t, h.d, other).Principal(there) != nil {
		t.Error(gone, err)
	}
	// Who holds more at home is not an admin's to remove.
	boss, _, err := h.d.CreateUser(ctx, h.owner, "default", directory.NewUser{Name: "boss", Roles: []authz.Role{authz.Owner}})
	must(t, err)
	if _, err := h.d.RemoveUserBy(ctx, by, "default", boss.ID); protocol.AsError(err).Code != protocol.CodeDenied {
		t.Error(err)
	}
}

// What a removal took elsewhere is told of when it is done.
func TestARemovalTellsWhatWentElsewhere(t *testing.T) {
	h := newDesk(t)
	other, there := h.elsewhere(authz.Owner)
	gone, err := h.d.RemoveUserBy(t.Context(), h.owner, "default", h.anna.ID)
	must(t, err)
	if len(gone) != 1 || gone[0].ID != there || gone[0].Workspace != other {
		t.Errorf("%+v", gone)
	}
	h = newDesk(t)
	_, there = h.elsewhere(authz.Analyst)
	gone, err = h.d.DestroyWorkspace(t.Context(), "default")
	must(t, err)
	if len(gone) != 1 || gone[0].ID != there {
		t.Errorf("%+v", gone)
	}
}

// A token may be short and an invitation long: what it gave ends with what it was limited to and with its revoking, not with its time.
func TestACodeOutlivesTheTimeOfTheTokenThatGaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newDesk(t)
		tok, _, err := h.d.CreateAdminToken(t.Context(), "default", "for an hour", time.Hour)
		must(t, err)
		p, code, err := h.d.CreateUser(t.Context(), directory.By{ID: tok.Principal.ID, Token: tok.ID}, "default", directory.NewUser{Name: "bert", Roles: []authz.Role{authz.Operator}})
		must(t, err)
		bert := func() *directory.Person { return workspace(t, h.d, "default").PersonOf(p.ID) }
		time.Sleep(2 * time.Hour) // the bubble's clock
		if _, _, err := h.d.IssueCode(t.Context(), directory.By{ID: tok.Principal.ID, Token: tok.ID}, "default", p.ID, 0); protocol.AsError(err).Code != protocol.CodeDenied {
			t.Error("the token gives another after its end:", err)
		}
		must(t, h.d.JudgeCode(bert(), code.ExposeString()))
		must(t, h.d.RevokeToken(t.Context(), "default", tok.ID))
		h.void("revoked", h.d.JudgeCode(bert(), code.ExposeString()))
	})
}
