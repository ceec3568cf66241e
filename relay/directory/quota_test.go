package directory_test

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// Of each kind a workspace gets what its quota says and no more, of many at once too; another workspace's do not count; what is
// removed makes room; and what is refused leaves nothing.
func TestQuotas(t *testing.T) {
	c := directory.DefaultConfig(t.TempDir())
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	c.Quota = directory.Quota{Agents: 2, Connections: 2, Users: 2, Services: 2, Tokens: 4}
	d, ctx := reopen(t, c), context.Background()
	by := directory.By{ID: in.Principal}
	admin := workspace(t, d, "default").Principal(in.Principal).Principal
	o, err := d.CreateWorkspace(ctx, "other")
	must(t, err)
	_, err = d.CreateConnection(ctx, o.ID, "default", profile("a"))
	must(t, err)
	name := func(n int) string { return "n" + strings.Repeat("x", n) }
	enrol := func(n int) error {
		_, ticket, err := d.CreateJoinToken(ctx, "default", "default", 0, in.Principal)
		if err != nil {
			return err
		}
		key := make([]byte, 32)
		key[0] = byte(n)
		_, err = d.Enroll(ctx, ticket, directory.Enrolment{Hostname: "h", OS: "linux", Arch: "amd64", Version: "1", SPKI: key, LogKey: key, SourceAddress: netip.MustParseAddr("192.0.2.7")},
			func(string, string, string) (directory.Certificate, error) {
				return directory.Certificate{Serial: name(n), SPKI: key, NotAfter: time.Now().Add(time.Hour)}, nil
			})
		return err
	}
	for kind, c := range map[string]struct {
		make1 func(n int) error
		room  int // beside what is there
		free  func() error
	}{
		directory.QuotaAgents: {enrol, 2, func() error { return d.DeleteAgent(ctx, "default", workspace(t, d, "default").Agents[0].ID) }},
		directory.QuotaConnections: {func(n int) error {
			_, err := d.CreateConnection(ctx, "default", "default", profile(name(n)))
			return err
		}, 2,
			func() error { return d.DeleteConnection(ctx, "default", workspace(t, d, "default").Connections[0].ID) }},
		directory.QuotaUsers: {func(n int) error {
			_, _, err := d.CreateUser(ctx, by, "default", directory.NewUser{Name: name(n), Roles: []authz.Role{authz.Analyst}})
			return err
		}, 2, func() error { return d.RemoveUser(ctx, "default", workspace(t, d, "default").Users()[0].ID) }},
		directory.QuotaServices: {func(n int) error {
			_, err := d.CreateService(ctx, by, "default", directory.NewService{Name: "s" + name(n)})
			return err
		}, 2,
			func() error { return d.DeleteService(ctx, by, "default", workspace(t, d, "default").Services()[0].ID) }},
		directory.QuotaTokens: {func(n int) error {
			_, _, err := d.CreateToken(ctx, admin, "default", directory.NewToken{Name: name(n), Principal: in.Principal})
			return err
		}, 3, func() error {
			for _, tok := range workspace(t, d, "default").Tokens {
				if tok.ID != in.TokenID && tok.Revoked.IsZero() {
					return d.RevokeToken(ctx, "default", tok.ID)
				}
			}
			return nil
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			before := workspace(t, d, "default").Uses(kind, time.Now())
			errs := make([]error, 6)
			var wg sync.WaitGroup
			for i := range errs {
				wg.Go(func() { errs[i] = c.make1(i + 1) })
			}
			wg.Wait()
			made := 0
			for _, err := range errs {
				if err == nil {
					made++
					continue
				}
				if e := protocol.AsError(err); e.Code != protocol.CodeTooLarge || e.Rule != "quota."+kind || e.Hint == "" {
					t.Error(err)
				}
			}
			if n := workspace(t, d, "default").Uses(kind, time.Now()); made != c.room || n != before+c.room {
				t.Errorf("made %d, there are %d, want %d more than %d", made, n, c.room, before)
			}
			must(t, c.free())
			must(t, c.make1(7))
			want(t, c.make1(8), protocol.CodeTooLarge)
		})
	}
}

// A workspace that has bounds of its own has those alone; the others keep what is for each.
func TestQuotasOfSingleWorkspaces(t *testing.T) {
	c := directory.DefaultConfig(t.TempDir())
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	c.Quota, c.Quotas = directory.Quota{Connections: 1, Agents: 7}, map[string]directory.Quota{"big": {Connections: 3}}
	d := reopen(t, c)
	for _, ws := range []string{"big", "small"} {
		_, err := d.CreateWorkspace(t.Context(), ws)
		must(t, err)
	}
	for ws, most := range map[string]int{"big": 3, "small": 1} {
		for i := range most {
			_, err := d.CreateConnection(t.Context(), ws, "default", profile("c"+strings.Repeat("x", i)))
			must(t, err)
		}
		_, err := d.CreateConnection(t.Context(), ws, "default", profile("more"))
		want(t, err, protocol.CodeTooLarge)
	}
	if q := d.Quota(workspace(t, d, "big")); q != (directory.Quota{Connections: 3}) {
		t.Errorf("%+v", q)
	}
	if q := d.Quota(workspace(t, d, "small")); q != c.Quota {
		t.Errorf("%+v", q)
	}
}
