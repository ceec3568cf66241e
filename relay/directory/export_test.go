package directory

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/relay/store"
)

// In every test of this package each state that was patched by the journal is what reading all of it gives.
func init() {
	loaded = func(tx *store.Tx, patched *store.State) error {
		whole, err := tx.Load(nil)
		if err != nil {
			return err
		}
		a, b := untimed(*patched), untimed(*whole)
		for i := range a.NumField() {
			if f := a.Type().Field(i); f.IsExported() && !(f.Type.Kind() == reflect.Slice && a.Field(i).Len()+b.Field(i).Len() == 0) && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				return fmt.Errorf("the journal missed a change of %s:\n%+v\n%+v", f.Name, a.Field(i), b.Field(i))
			}
		}
		return nil
	}
}

// untimed is a state without times of use, which may be older in one that was patched.
func untimed(s store.State) reflect.Value {
	s.Agents, s.APITokens, s.Sessions = slices.Clone(s.Agents), slices.Clone(s.APITokens), slices.Clone(s.Sessions)
	for i := range s.Agents {
		s.Agents[i].LastSeen = 0
	}
	for i := range s.APITokens {
		s.APITokens[i].LastUsed, s.APITokens[i].LastSource = 0, nil
	}
	for i := range s.Sessions {
		s.Sessions[i].LastUsed = 0
	}
	return reflect.ValueOf(s)
}

// HoldProofs lets certificates that are to be proven wait until release.
func HoldProofs(d *Directory) (waiting func() int, release func()) {
	d.proofs.turn.Lock()
	return func() int {
		d.proofs.mu.Lock()
		defer d.proofs.mu.Unlock()
		return len(d.proofs.waiting)
	}, d.proofs.turn.Unlock
}

// FillAgents adds n agents to a group (ids), each with a certificate and the join token that it was enrolled by.
func FillAgents(ctx context.Context, d *Directory, workspace, group string, n int) error {
	return d.change(ctx, func(tx *store.Tx) error {
		at := now()
		for i := range n {
			id := NewID("agt")
			sealed, err := seal(d.vault, place(workspace, "agents", id, 1), agentBody{Name: fmt.Sprintf("agent-%05d", i), LogKey: make([]byte, 32),
				Facts: Facts{Hostname: "host.example.com", OS: "linux", Arch: "amd64", Version: "1.0.0", ConfigDigest: strings.Repeat("d", 64)}})
			if err != nil {
				return err
			}
			digest := sha256.Sum256([]byte(id))
			if err := errors.Join(
				tx.InsertAgent(store.Agent{ID: id, Workspace: workspace, Group: group, State: stateActive, Created: toMs(at), FirstSeen: toMs(at), Version: 1, Sealed: sealed}),
				tx.InsertCertificate(store.Certificate{Agent: id, Serial: id, SPKI: digest[:], Issued: toMs(at), NotAfter: toMs(at.Add(time.Hour)), Proven: toMs(at)}),
				tx.InsertJoinToken(store.JoinToken{ID: NewID("jtk"), Workspace: workspace, Group: group, Digest: digest[:], Created: toMs(at), CreatedBy: "x", Expires: toMs(at.Add(time.Hour))}),
			); err != nil {
				return err
			}
		}
		return nil
	})
}

// CheckCode tells whether a one-time code is good.
func (d *Directory) CheckCode(p *Person, code string) bool { return d.JudgeCode(p, code) == nil }
