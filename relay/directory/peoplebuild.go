package directory

import (
	"bytes"
	"fmt"

	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// addPeople joins people, users, sign-in policies and sessions. It comes after addPrincipals.
func (s *Snapshot) addPeople(v *vault.Vault, st *store.State, prev *Snapshot) error {
	for _, r := range st.SignInPolicies {
		w, err := s.in("sign-in policy", r.Workspace, r.Workspace)
		if err != nil {
			return err
		}
		if err := open(v, place(r.Workspace, "sign_in_policies", r.Workspace, r.Version), r.Sealed, &w.SignIn); err != nil {
			return err
		}
		if err := w.SignIn.check(); err != nil {
			return fmt.Errorf("sign-in policy of %s: %w", r.Workspace, err)
		}
	}
	keys, err := s.addPasskeys(v, st, prev)
	if err != nil {
		return err
	}
	people := make(map[string]*Person, len(st.People))
	for _, r := range st.People {
		if prev != nil && prev.people[r.ID] != nil && bytes.Equal(prev.people[r.ID].sealed, r.Sealed) {
			people[r.ID] = prev.people[r.ID].with(keys[r.ID])
			continue
		}
		b, err := openPerson(v, r)
		if err != nil {
			return err
		}
		people[r.ID] = &Person{ID: r.ID, Home: r.Home, Created: fromMs(r.Created), PasswordSet: fromMs(b.PasswordSet), SecondFactor: fromMs(b.SecondFactor),
			Recovery: len(b.Recovery), InvitedUntil: fromMs(b.InviteUntil), Passkeys: keys[r.ID], known: b.Known, Email: b.Email, emailSet: b.EmailSet, emailBy: b.EmailBy, version: r.Version, sealed: r.Sealed}
	}
	s.people = people
	for _, r := range st.Users {
		w, err := s.in("user", r.Principal, r.Workspace)
		if err != nil {
			return err
		}
		want, err := userTag(v, r)
		if err != nil {
			return fmt.Errorf("check user %s: %w", r.Principal, err)
		}
		p := w.principals[r.Principal]
		if p == nil || people[r.Person] == nil || !bytes.Equal(want, r.Tag) {
			return fmt.Errorf("user %s was not written by a relay of this installation", r.Principal)
		}
		w.people[p.ID], w.users[p.Name] = people[r.Person], p
	}
	for _, w := range s.workspaces {
		for _, t := range w.Tokens {
			if t.person = w.people[t.Principal.ID]; t.person != nil {
				t.policy = w.SignIn
			}
		}
	}
	s.sessions, s.sessionsByID = make(map[[32]byte]*Session, len(st.Sessions)), make(map[string]*Session, len(st.Sessions))
	for _, r := range st.Sessions {
		if err := s.addSession(v, r, prev); err != nil {
			return err
		}
	}
	for _, w := range s.workspaces {
		sortSessions(w.Sessions)
	}
	return nil
}

func (s *Snapshot) addSession(v *vault.Vault, r store.Session, prev *Snapshot) error {
	w, err := s.in("session", r.ID, r.Workspace)
	if err != nil {
		return err
	}
	p, person := w.principals[r.Principal], w.people[r.Principal]
	if p == nil || person == nil || len(r.Digest) != 32 {
		return fmt.Errorf("session %s has no person or no digest", r.ID)
	}
	t := &Session{ID: r.ID, Workspace: r.Workspace, Principal: p, Person: person, Created: fromMs(r.Created), Expires: fromMs(r.Expires),
		policy: w.SignIn.InForce(), digest: [32]byte(r.Digest), sealed: r.Sealed}
	old := (*Session)(nil)
	if prev != nil {
		old = prev.sessionsByID[r.ID]
	}
	if old != nil && bytes.Equal(old.sealed, r.Sealed) && old.digest == t.digest && old.Principal.ID == p.ID && old.Expires.Equal(t.Expires) && old.Created.Equal(t.Created) {
		t.Confirmed, t.ByCode, t.Source, t.Agent, t.idle, t.used = old.Confirmed, old.ByCode, old.Source, old.Agent, old.idle, old.used
		t.ByPasskey, t.Since = old.ByPasskey, old.Since
	} else {
		var b sessionBody
		if err := open(v, place(r.Workspace, "sessions", r.ID, r.Version), r.Sealed, &b); err != nil {
			return err
		}
		if b.Principal != r.Principal || !bytes.Equal(b.Digest, r.Digest) || b.Expires != r.Expires || b.Created != r.Created {
			return fmt.Errorf("session %s was not written by a relay of this installation", r.ID)
		}
		t.Confirmed, t.ByCode, t.Source, t.Agent, t.idle, t.used = fromMs(b.Confirmed), b.ByCode, b.Source, b.Agent, b.Idle, &usage{}
		if t.ByPasskey, t.Since = b.ByPasskey, t.Created; b.Since != 0 {
			t.Since = fromMs(b.Since)
		}
	}
	for _, at := range []interface {
		Load() int64
		Store(int64)
	}{&t.used.last, &t.used.written} {
		if at.Load() < r.LastUsed {
			at.Store(r.LastUsed)
		}
	}
	s.sessions[t.digest], s.sessionsByID[t.ID] = t, t
	w.Sessions = append(w.Sessions, t)
	return nil
}
