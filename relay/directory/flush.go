package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/fairleadhq/fairlead/relay/store"
)

// flush writes what was noted since the last time: one transaction for all.
func (d *Directory) flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	d.reloading.Lock()
	s := d.last
	d.reloading.Unlock()
	if s == nil {
		return nil
	}
	type seen struct {
		a           *Agent
		first, last int64
		facts       Facts
		dirty       bool
	}
	var agents []seen
	for _, a := range s.agents {
		l := a.live
		l.mu.Lock()
		if l.dirty || l.last > l.written {
			agents = append(agents, seen{a, l.first, l.last, l.facts, l.dirty})
		}
		l.mu.Unlock()
	}
	type use struct {
		at     int64
		source []byte // sealed
	}
	used := map[*Token]use{}
	for _, t := range s.tokens {
		if at := t.used.last.Load(); at > t.used.written.Load() {
			u := use{at: at}
			if from := t.LastSource(); from.IsValid() {
				b, err := from.MarshalBinary()
				if err == nil {
					u.source, err = d.vault.Seal(sourcePlace(t), b)
				}
				if err != nil {
					return fmt.Errorf("seal where a token was used: %w", err)
				}
			}
			used[t] = u
		}
	}
	sessions := map[*Session]int64{}
	for _, t := range s.sessions {
		if at := t.used.last.Load(); at > t.used.written.Load() {
			sessions[t] = at
		}
	}
	if len(agents) == 0 && len(used) == 0 && len(sessions) == 0 {
		return nil
	}
	write := func(tx *store.Tx) error {
		for _, v := range agents {
			if !v.dirty {
				if err := tx.SeenAgent(v.a.ID, v.last); err != nil {
					return err
				}
				continue
			}
			_, err := d.editAgent(tx, v.a.Workspace, v.a.ID, func(r *store.Agent, b *agentBody) error {
				if r.State == stateAwaiting {
					r.State = stateActive
				}
				if r.FirstSeen == 0 {
					r.FirstSeen = v.first
				}
				r.LastSeen, b.Facts = max(r.LastSeen, v.last), v.facts
				return nil
			})
			if err != nil && !errors.Is(err, store.ErrNotFound) { // deleted meanwhile
				return err
			}
		}
		for t, u := range used {
			if err := tx.UsedAPIToken(t.ID, u.at, u.source); err != nil {
				return err
			}
		}
		for t, at := range sessions {
			if err := tx.UsedSession(t.ID, at); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	if slices.ContainsFunc(agents, func(v seen) bool { return v.dirty }) {
		err = d.change(ctx, write)
	} else {
		err = fail(d.store.WriteQuiet(ctx, write))
	}
	if err != nil {
		return err
	}
	for _, v := range agents {
		l := v.a.live
		l.mu.Lock()
		l.written = max(l.written, v.last)
		if l.facts.equal(v.facts) {
			l.dirty = false
		}
		l.mu.Unlock()
	}
	for t, u := range used {
		t.used.written.Store(u.at)
	}
	for t, at := range sessions {
		t.used.written.Store(at)
	}
	return nil
}
