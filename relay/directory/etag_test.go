package directory_test

import (
	"errors"
	"testing"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// A condition is judged on the state that is changed, also when another process wrote it a moment ago and no snapshot shows it yet.
func TestConditionSeesWhatAnotherProcessWrote(t *testing.T) {
	dir := t.TempDir()
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: directory.DefaultConfig(dir)})
	must(t, err)
	mine, theirs := reopen(t, directory.DefaultConfig(dir)), reopen(t, directory.DefaultConfig(dir))
	tag := func(s *directory.Snapshot) string {
		w, err := s.Workspace("default")
		must(t, err)
		return w.BudgetETag()
	}
	stale := &protocol.Error{Code: protocol.CodePrecondition, Message: "stale"}
	for n := range int64(5) {
		read := tag(mine.Snapshot())
		judged := 0
		set := func(d *directory.Directory, limit int64) error {
			c := &directory.Change{If: func(s *directory.Snapshot) error {
				if judged++; tag(s) != read {
					return stale
				}
				return nil
			}}
			ctx := directory.WithChange(t.Context(), c)
			if err := d.SetBudget(ctx, "default", "", budget.Limits{Concurrent: limit}); err != nil {
				return err
			}
			return d.Check(ctx) // it was judged: not again, for it would not hold any more
		}
		must(t, set(theirs, 10*n+1))
		want(t, set(mine, 10*n+2), protocol.CodePrecondition)
		if judged != 2 {
			t.Errorf("judged %d times", judged)
		}
		must(t, mine.SetBudget(t.Context(), "default", "", budget.Limits{Concurrent: 10*n + 3})) // and without a condition it goes on
	}
}

// Everything else that refuses a change comes before its condition, and a change that a condition refused is not made.
func TestConditionComesLast(t *testing.T) {
	d, _ := start(t)
	no := errors.New("no")
	ctx := directory.WithChange(t.Context(), &directory.Change{If: func(*directory.Snapshot) error { return no }})
	generation := d.Snapshot().Generation
	if err := d.DeleteGroup(ctx, "default", "default"); !errors.Is(err, no) {
		t.Fatal(err)
	}
	want(t, d.DeleteGroup(ctx, "default", "gone"), protocol.CodeNotFound)
	if _, err := d.CreateGroup(ctx, "default", "default"); err == nil || errors.Is(err, no) {
		t.Fatal(err)
	}
	w, err := d.Snapshot().Workspace("default")
	must(t, err)
	if _, err := w.Group("default"); err != nil || d.Snapshot().Generation != generation {
		t.Fatal("a change was made that its condition refused", err)
	}
	if err := d.Check(ctx); !errors.Is(err, no) {
		t.Fatal("a request that changes nothing has no condition", err)
	}
	must(t, d.Check(t.Context()))
}
