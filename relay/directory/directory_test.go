package directory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start makes an installation in a temporary folder and opens it.
func start(t testing.TB) (*directory.Directory, *directory.Initial) {
	t.Helper()
	dir := t.TempDir()
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: directory.DefaultConfig(dir)})
	if err != nil {
		t.Fatal(err)
	}
	return reopen(t, directory.DefaultConfig(dir)), in
}

func reopen(t testing.TB, c directory.Config) *directory.Directory {
	t.Helper()
	d, err := directory.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// want checks the code of an error that a caller may see.
func want(t testing.TB, err error, code protocol.Code) {
	t.Helper()
	var e *protocol.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

func TestInitMakesAWorkingInstallation(t *testing.T) {
	d, in := start(t)
	s := d.Snapshot()
	w, err := s.Workspace("default")
	must(t, err)
	if w.ID != in.Workspace || s.Installation != in.Installation || len(s.Relays) != 1 || s.Relays[0].ID != in.Relay {
		t.Fatalf("the snapshot is another: %+v", s)
	}
	if g, err := w.Group("default"); err != nil || g.ID != in.Group {
		t.Fatal(g, err)
	}
	tok, _, ok := s.FindToken(in.Token.ExposeString())
	if !ok || tok.ID != in.TokenID || !tok.Live(time.Now()) || tok.Principal.ID != in.Principal {
		t.Fatal("the first token is not there")
	}
	if roles := tok.Principal.Roles(); len(roles) != 1 || roles[0] != "owner" {
		t.Fatal(roles)
	}
}
