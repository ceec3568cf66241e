package directory_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// names gives those of all workspaces.
func names(d *directory.Directory) (out []string) {
	for _, w := range d.Snapshot().Workspaces() {
		out = append(out, w.Name)
	}
	return out
}

func TestFoundedWorkspaceHasWhatTheFirstOneHas(t *testing.T) {
	d, _ := start(t)
	ctx := t.Context()
	network := netip.MustParsePrefix("203.0.113.0/24")
	w, code, err := d.FoundWorkspace(ctx, directory.NewWorkspace{Name: "sales", Owner: "Anna", Allow: []netip.Prefix{network, network}})
	must(t, err)
	if !slices.Equal(w.Prefixes, []netip.Prefix{network}) || w.Admits(directory.Callers, netip.MustParseAddr("127.0.0.1")) || !w.Admits(directory.People, netip.MustParseAddr("203.0.113.9")) {
		t.Error("it admits", w.Prefixes)
	}
	if len(w.Groups) != 1 || w.Groups[0].Name != "default" || len(w.Tokens)+len(w.Agents)+len(w.Connections) != 0 {
		t.Errorf("%+v", w)
	}
	p, person := w.User("anna")
	if len(w.Principals) != 1 || p == nil || !p.Owns() || person.Home != w.ID || !person.PasswordSet.IsZero() {
		t.Fatalf("%+v %+v", p, person)
	}
	if got := authz.Decide(p.Principal, authz.WorkspaceOwn, authz.Scope{Workspace: w.ID}, authz.At{Time: time.Now()}); !got.Allow {
		t.Error("the owner does not own it:", got.Reason)
	}
	first, err := d.Snapshot().Workspace("default")
	must(t, err)
	if got := authz.Decide(p.Principal, authz.ConnectionsRead, authz.Scope{Workspace: first.ID}, authz.At{Time: time.Now()}); got.Allow {
		t.Error("P9 the owner of one workspace may look into another")
	}
	v, err := d.NewPasswordVerifier(aPassword)
	must(t, err)
	must(t, d.TakeCode(ctx, person, code.ExposeString(), v))
	t.Run("from this machine only, when nobody says", func(t *testing.T) {
		w, _, err := d.FoundWorkspace(ctx, directory.NewWorkspace{Name: "lab", Owner: "bert"})
		must(t, err)
		for addr, admitted := range map[string]bool{"127.0.0.1": true, "::1": true, "10.0.0.1": false, "203.0.113.9": false, "2001:db8::1": false} {
			if w.Admits(directory.Callers, netip.MustParseAddr(addr)) != admitted {
				t.Error(addr)
			}
		}
	})
	t.Run("by somebody of another workspace, who needs no code", func(t *testing.T) {
		o, code, err := d.FoundWorkspace(ctx, directory.NewWorkspace{Name: "press", Owner: "anna.press", Person: person.ID})
		must(t, err)
		p, same := o.User("anna.press")
		if !code.IsZero() || p == nil || !p.Owns() || same.ID != person.ID || same.Home != w.ID {
			t.Fatalf("%+v %+v", p, same)
		}
		_, s, err := d.BeginSession(ctx, "press", directory.NewSession{Principal: p.ID, Verifier: v, Source: netip.MustParseAddr("127.0.0.1")})
		must(t, err)
		if s.IsZero() {
			t.Error("no session")
		}
		t.Run("who may be removed nowhere, while nobody else owns it", func(t *testing.T) {
			want(t, d.DeleteWorkspace(ctx, "sales"), protocol.CodeConflict)
		})
	})
}

// All of a workspace is made, or nothing; in force for other processes, too.
func TestFoundWorkspaceRefusals(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	c.Poll = 10 * time.Millisecond
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, serve := reopen(t, c), reopen(t, c)
	ctx := t.Context()
	many := make([]netip.Prefix, directory.MaxAllowlist+1)
	for name, refused := range map[string]struct {
		w    directory.NewWorkspace
		code protocol.Code
	}{
		"a name that is none":                   {directory.NewWorkspace{Name: "a/b", Owner: "anna"}, protocol.CodeInvalid},
		"a name that is taken":                  {directory.NewWorkspace{Name: "default", Owner: "anna"}, protocol.CodeConflict},
		"no owner":                              {directory.NewWorkspace{Name: "sales"}, protocol.CodeInvalid},
		"an owner's name that is none":          {directory.NewWorkspace{Name: "sales", Owner: "ANNA SMITH"}, protocol.CodeInvalid},
		"a network with bits behind the mask":   {directory.NewWorkspace{Name: "sales", Owner: "anna", Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}, protocol.CodeInvalid},
		"too many networks":                     {directory.NewWorkspace{Name: "sales", Owner: "anna", Allow: many}, protocol.CodeTooLarge},
		"a person who is not there":             {directory.NewWorkspace{Name: "sales", Owner: "anna", Person: directory.NewID("per")}, protocol.CodeNotFound},
		"a code that would count for too long":  {directory.NewWorkspace{Name: "sales", Owner: "anna", Life: 365 * 24 * time.Hour}, protocol.CodeInvalid},
		"a code that would count for no minute": {directory.NewWorkspace{Name: "sales", Owner: "anna", Life: time.Second}, protocol.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			was := d.Snapshot().Generation
			_, code, err := d.FoundWorkspace(ctx, refused.w)
			want(t, err, refused.code)
			if !code.IsZero() || d.Snapshot().Generation != was || !slices.Equal(names(d), []string{"default"}) {
				t.Error("something was made", names(d))
			}
		})
	}
	_, _, err = d.FoundWorkspace(ctx, directory.NewWorkspace{Name: "sales", Owner: "anna"})
	must(t, err)
	eventually(t, "the other process has it", func() bool { return slices.Equal(names(serve), []string{"default", "sales"}) })
}
