package directory_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// An address is sealed, outlives a restart, names another state of the user, and takes an open code along when it goes.
func TestAddressesOfPeople(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	by := directory.By{ID: in.Principal}
	const first, second = "Canary-address-7f3a91Zq@example.com", "Canary-other-7f3a91Zq@example.com"
	u, code, err := d.CreateUser(t.Context(), by, "default", directory.NewUser{Name: "bert", Roles: []authz.Role{authz.Analyst}, Email: first})
	must(t, err)
	now := func() (*directory.Person, string) {
		t.Helper()
		w, err := d.Snapshot().Workspace("default")
		must(t, err)
		return w.PersonOf(u.ID), w.UserETag(w.Principal(u.ID))
	}
	set := func(address, want string) {
		t.Helper()
		_, before := now()
		was, err := d.SetEmail(t.Context(), by, "default", u.ID, address)
		must(t, err)
		p, after := now()
		if was != want || p.Email != address || (before == after) != (was == address) {
			t.Errorf("%q was %q: %q, %s %s", address, was, p.Email, before, after)
		}
	}
	set(first, first)
	if p, _ := now(); !d.CheckCode(p, code.ExposeString()) {
		t.Error("the code counts no more, and nothing was changed")
	}
	set(second, first)
	if p, _ := now(); d.CheckCode(p, code.ExposeString()) || !p.InvitedUntil.IsZero() {
		t.Error("a code that went to another address counts")
	}
	set("", second)
	code, _, err = d.IssueCode(t.Context(), by, "default", u.ID, 0)
	must(t, err)
	set(first, "")
	if p, _ := now(); !d.CheckCode(p, code.ExposeString()) {
		t.Error("a code that went nowhere counts no more")
	}
	for _, bad := range []string{"bert", "bert@example.com\r\nBcc: eve@example.com", "Bert <bert@example.com>"} {
		if _, err := d.SetEmail(t.Context(), by, "default", u.ID, bad); protocol.AsError(err).Code != protocol.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
		if _, _, err := d.CreateUser(t.Context(), by, "default", directory.NewUser{Name: "x", Roles: []authz.Role{authz.Analyst}, Email: bad}); protocol.AsError(err).Code != protocol.CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
	must(t, d.Close())
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no files")
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(t, err)
		if bytes.Contains(b, []byte("7f3a91Zq@")) {
			t.Errorf("an address stands in %s", f)
		}
	}
	d = reopen(t, c)
	if p, _ := now(); p.Email != first {
		t.Errorf("after a restart: %q", p.Email)
	}
}
