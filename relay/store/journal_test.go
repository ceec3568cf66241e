package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
)

func load(t testing.TB, s *Store, prev *State) *State {
	t.Helper()
	var st *State
	if err := s.Read(t.Context(), func(tx *Tx) (err error) {
		st, err = tx.Load(prev)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return st
}

// same holds a patched state against the whole one.
func same(t testing.TB, s *Store, patched *State) {
	t.Helper()
	a, b := reflect.ValueOf(*patched), reflect.ValueOf(*load(t, s, nil))
	for i := range a.NumField() {
		f := a.Type().Field(i)
		if !f.IsExported() || f.Type.Kind() == reflect.Slice && a.Field(i).Len()+b.Field(i).Len() == 0 {
			continue
		}
		if x, y := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(x, y) {
			t.Fatalf("%s:\n%+v\n%+v", f.Name, x, y)
		}
	}
}

func started(t testing.TB) (ours, another *Store) {
	t.Helper()
	dir := t.TempDir()
	ours, another = openAt(t, dir), openAt(t, dir)
	write(t, ours, func(tx *Tx) error { return tx.PutInstallation(Installation{ID: "ins", KeyWrapped: []byte("k")}) })
	seed(t, ours)
	return ours, another
}

func (s *State) read(all ...string) (out []string) {
	for _, t := range all {
		if !s.same[t] {
			out = append(out, t)
		}
	}
	return out
}

func TestStateIsPatchedByTheJournal(t *testing.T) {
	s, another := started(t)
	r := rand.New(rand.NewPCG(7, 7))
	b := []byte("sealed")
	st := load(t, s, nil)
	var agents, tokens, principals []string
	version := map[string]int64{}
	pick := func(of []string) string { return of[r.IntN(len(of))] }
	steps := []func(tx *Tx, i int) error{
		func(tx *Tx, i int) error {
			id := fmt.Sprintf("agt_%04d", r.IntN(10_000)*2)
			agents, version[id] = append(agents, id), 1
			return tx.InsertAgent(Agent{ID: id, Workspace: "ws_a", Group: "grp_a", State: "active", Version: 1, Sealed: b})
		},
		func(tx *Tx, i int) error {
			id := pick(agents)
			version[id]++
			return tx.UpdateAgent(Agent{ID: id, Workspace: "ws_a", Group: "grp_a", State: "disabled", Version: version[id], Sealed: []byte{byte(i)}})
		},
		func(tx *Tx, i int) error { return tx.DeleteAgent("ws_a", pick(agents)) },
		func(tx *Tx, i int) error {
			return tx.InsertCertificate(Certificate{Agent: pick(agents), Serial: fmt.Sprint(r.IntN(3)), SPKI: b, Issued: int64(r.IntN(3))})
		},
		func(tx *Tx, i int) error { return tx.ProveCertificate(pick(agents), fmt.Sprint(r.IntN(3)), int64(i)) },
		func(tx *Tx, i int) error { return tx.DeleteCertificate(pick(agents), fmt.Sprint(r.IntN(3))) },
		func(tx *Tx, i int) error {
			id := fmt.Sprintf("jtk_%04d", i)
			tokens = append(tokens, id)
			return tx.InsertJoinToken(JoinToken{ID: id, Workspace: "ws_a", Group: "grp_a", Digest: []byte(id), Expires: int64(10_000 + i)})
		},
		func(tx *Tx, i int) error { _, err := tx.ConsumeJoinToken([]byte(pick(tokens)), "agt_x", 5); return err },
		func(tx *Tx, i int) error { return tx.DeleteJoinToken("ws_a", pick(tokens)) },
		func(tx *Tx, i int) error { return tx.DeleteOldJoinTokens(int64(9_950 + i)) },
		func(tx *Tx, i int) error {
			id := fmt.Sprintf("usr_%04d", i)
			principals = append(principals, id)
			err := errors.Join(tx.InsertPrincipal(Principal{ID: id, Workspace: "ws_b", Kind: []string{"service", "user"}[i%2], State: "active", Version: 1, NameDigest: []byte(id), Sealed: b}),
				tx.InsertAPIToken(APIToken{ID: "tok_" + id, Workspace: "ws_b", Principal: id, Digest: []byte(id), Version: 1, Sealed: b}),
				tx.InsertGrant(Grant{ID: "gra_" + id, Workspace: "ws_b", Principal: id, Role: "admin", Tag: b}))
			if i%2 == 0 {
				return err
			}
			return errors.Join(err, tx.InsertPerson(Person{ID: "per_" + id, Home: []string{"ws_a", "ws_b"}[i/2%2], Version: 1, Sealed: b}),
				tx.InsertUser(User{Principal: id, Workspace: "ws_b", Person: "per_" + id, Tag: b}),
				tx.InsertSession(Session{ID: "ses_" + id, Workspace: "ws_b", Principal: id, Digest: []byte(id), Expires: int64(i), Version: 1, Sealed: b}))
		},
		func(tx *Tx, i int) error { return tx.SetPrincipalState("ws_b", pick(principals), "disabled") },
		func(tx *Tx, i int) error { return tx.DeleteService("ws_b", pick(principals)) },
		func(tx *Tx, i int) error { return tx.DeleteUser("ws_b", pick(principals)) },
		func(tx *Tx, i int) error {
			return tx.UpdatePerson(Person{ID: "per_" + pick(principals), Version: 2, Sealed: []byte{byte(i)}})
		},
		func(tx *Tx, i int) error {
			id := pick(principals)
			return tx.InsertPasskey(Passkey{ID: fmt.Sprintf("pky_%04d", r.IntN(20)), Person: "per_" + id, Home: "ws_a", Digest: []byte(fmt.Sprint(i)), Version: 1, Sealed: b})
		},
		func(tx *Tx, i int) error {
			return tx.UpdatePasskey(Passkey{ID: fmt.Sprintf("pky_%04d", r.IntN(20)), Version: 2, Sealed: []byte{byte(i)}})
		},
		func(tx *Tx, i int) error {
			return tx.DeletePasskey("per_"+pick(principals), fmt.Sprintf("pky_%04d", r.IntN(20)))
		},
		func(tx *Tx, i int) error { return tx.DeletePasskeysOf("per_" + pick(principals)) },
		func(tx *Tx, i int) error { _, err := tx.DeleteSessionsOf("per_"+pick(principals), ""); return err },
		func(tx *Tx, i int) error { return tx.RevokeAPIToken("ws_b", "tok_"+pick(principals), int64(i)) },
		func(tx *Tx, i int) error { return tx.DeleteSession("ws_b", "ses_"+pick(principals)) },
		func(tx *Tx, i int) error { return tx.TrimSessions(pick(principals), r.IntN(2), int64(i-50)) },
		func(tx *Tx, i int) error { return tx.DeleteGrant("ws_b", "gra_"+pick(principals)) },
		func(tx *Tx, i int) error {
			id := fmt.Sprintf("con_%04d", i)
			return errors.Join(tx.InsertConnection(Connection{ID: id, Workspace: "ws_b", Group: "grp_b", Version: 1, NameDigest: []byte(id), Sealed: b}),
				tx.PutGateway(Gateway{ID: "gw_" + id, Workspace: "ws_b", Connection: id, Version: 1, AddressDigest: []byte(id), Sealed: b}),
				tx.PutBudget(Budget{Workspace: "ws_b", Connection: id, Version: 1, Sealed: b}))
		},
		func(tx *Tx, i int) error { return tx.DeleteConnection("ws_b", fmt.Sprintf("con_%04d", r.IntN(i+1))) },
	}
	for i := range 1000 {
		step := steps[r.IntN(len(steps))]
		if len(agents) == 0 || len(tokens) == 0 || len(principals) == 0 {
			step = steps[[]int{0, 6, 10}[i%3]]
		}
		to := s
		if i%3 == 0 {
			to = another
		}
		_, _ = to.Write(t.Context(), func(tx *Tx) error { return step(tx, i) }) // what it refuses changes nothing
		if i%4 == 0 {
			st = load(t, s, st)
			same(t, s, st)
		}
	}
	if len(st.Agents) < 3 || len(st.Grants) < 3 || len(st.Users) < 3 || len(st.Connections) < 3 {
		t.Fatal("nothing was left to compare", len(st.Agents), len(st.Grants), len(st.Users), len(st.Connections))
	}
}

func TestAChangeReadsWhatItChanged(t *testing.T) {
	s, _ := started(t)
	big := []string{"agents", "certificates", "join_tokens", "principals", "api_tokens", "sessions", "grants", "connections", "people", "users", "gateways", "budgets"}
	for name, c := range map[string]struct {
		f    func(*Tx) error
		want []string
	}{
		"an allowlist": {func(tx *Tx) error {
			return tx.ReplaceAllowlist("ws_a", []AllowEntry{{ID: "x", Version: 1, Sealed: []byte("s")}})
		}, nil},
		"an agent": {func(tx *Tx) error {
			return tx.UpdateAgent(Agent{ID: "agt_a", Workspace: "ws_a", State: "active", Version: 2, Sealed: []byte("s")})
		}, []string{"agents"}},
		"times of use": {func(tx *Tx) error { return tx.SeenAgent("agt_a", 99) }, nil},
		"nothing hit":  {func(tx *Tx) error { return tx.DeleteOldJoinTokens(1) }, nil},
		"a connection": {func(tx *Tx) error { return tx.DeleteConnection("ws_a", "con_a") }, []string{"grants", "connections", "gateways", "budgets"}},
		"an unheard of form": {func(tx *Tx) error {
			_, err := tx.count("REPLACE INTO generation (one, value) VALUES (1, 90)")
			return err
		}, big},
		"an unheard of table": {func(tx *Tx) error {
			_, err := tx.count(`INSERT INTO main.relays VALUES ('r', 1, 1, x'00')`)
			return err
		}, big},
	} {
		t.Run(name, func(t *testing.T) {
			st := load(t, s, nil)
			write(t, s, c.f)
			next := load(t, s, st)
			if got := next.read(big...); !reflect.DeepEqual(got, c.want) {
				t.Errorf("read %v, want %v", got, c.want)
			}
			if name != "times of use" {
				same(t, s, next)
			}
		})
	}
}

// What the journal does not tell without a gap is no reason to keep what was.
func TestAStateTheJournalDoesNotReachIsReadWhole(t *testing.T) {
	s, _ := started(t)
	for name, f := range map[string]func(st *State){
		"a gap":               func(*State) { do(t, s, "DELETE FROM journal WHERE generation = (SELECT max(generation) FROM journal)") },
		"text that is none":   func(*State) { do(t, s, "UPDATE journal SET touched = 'x'") },
		"a time that is gone": func(st *State) { st.Generation -= keptGenerations + 1 },
		"a time to come":      func(st *State) { st.Generation += 5 },
		"many rows": func(*State) {
			write(t, s, func(tx *Tx) error {
				for i := range maxTouched + 1 {
					if err := tx.InsertJoinToken(JoinToken{ID: fmt.Sprintf("jtk_%04d", i), Workspace: "ws_a", Group: "grp_a", Digest: fmt.Append(nil, i)}); err != nil {
						return err
					}
				}
				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			st := load(t, s, nil)
			write(t, s, func(tx *Tx) error { return tx.SetPrincipalState("ws_a", "usr_a", "disabled") })
			f(st)
			next := load(t, s, st)
			if next.same["join_tokens"] {
				t.Error("taken over")
			}
			same(t, s, next)
			write(t, s, func(tx *Tx) error { return tx.SetPrincipalState("ws_a", "usr_a", "active") })
		})
	}
	write(t, s, func(*Tx) error { return nil })
	for range 3 {
		write(t, s, func(tx *Tx) error { return tx.SetPrincipalState("ws_a", "usr_a", "active") })
	}
	do(t, s, fmt.Sprintf("UPDATE generation SET value = value + %d", keptGenerations))
	write(t, s, func(*Tx) error { return nil })
	var n int
	if err := s.reader.QueryRow("SELECT count(*) FROM journal").Scan(&n); err != nil || n != 1 {
		t.Error("the journal grows:", n, err)
	}
}

func do(t testing.TB, s *Store, q string) {
	t.Helper()
	if _, err := s.writer.Exec(q); err != nil {
		t.Fatal(err)
	}
}
