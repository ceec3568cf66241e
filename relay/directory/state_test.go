package directory_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

func authority(t testing.TB, workspace string) directory.Authority {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	must(t, err)
	c, err := x509.ParseCertificate(der)
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return directory.Authority{Workspace: workspace, Chain: []*x509.Certificate{c, c}, Key: secret.New(key)}
}

// encodings of a value as it might stand in a file.
func encodings(v []byte) map[string][]byte {
	out := map[string][]byte{"plain": v, "hex": []byte(hex.EncodeToString(v)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(v))),
		"upper": bytes.ToUpper(v), "lower": bytes.ToLower(v), "quoted": []byte(strings.Trim(fmt.Sprintf("%q", v), `"`))}
	rev := bytes.Clone(v)
	slices.Reverse(rev)
	out["reversed"] = rev
	var wide []byte
	for _, u := range utf16.Encode([]rune(string(v))) {
		wide = append(wide, byte(u), byte(u>>8))
	}
	out["utf16"] = wide
	for shift := range 3 { // base64 looks different at each offset; its ends depend on the neighbours
		b := base64.StdEncoding.EncodeToString(append(make([]byte, shift), v...))
		b = strings.TrimRight(b, "=")
		out[fmt.Sprint("base64+", shift)] = []byte(b[min(4, 2*shift) : len(b)-3])
		u := base64.URLEncoding.EncodeToString(append(make([]byte, shift), v...))
		out[fmt.Sprint("base64url+", shift)] = []byte(strings.TrimRight(u, "=")[min(4, 2*shift) : len(strings.TrimRight(u, "="))-3])
	}
	return out
}

func scan(t *testing.T, dir string, canaries map[string][]byte) {
	t.Helper()
	var files int
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b, err := os.ReadFile(filepath.Join(dir, store.File+suffix))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		files++
		for name, v := range canaries {
			for enc, form := range encodings(v) {
				if bytes.Contains(b, form) {
					t.Errorf("%s stands in %s%s as %s", name, store.File, suffix, enc)
				}
			}
		}
	}
	if files == 0 {
		t.Fatal("nothing was scanned")
	}
}

func TestNothingReadableOnDisk(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	canaries := map[string][]byte{}
	canary := func(name string) string {
		s := "Canary-" + strings.ReplaceAll(name, " ", "-") + "-7f3a91Zq"
		canaries[name] = []byte(s)
		return s
	}
	in, err := directory.Init(t.Context(), directory.InitConfig{Config: c, Admin: canary("admin name"),
		Relay: directory.Relay{Name: canary("relay name"), Addresses: []string{canary("relay address")}}})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	ctx := t.Context()
	w, err := d.CreateWorkspace(ctx, canary("workspace"))
	must(t, err)
	_, err = d.CreateGroup(ctx, w.ID, canary("group"))
	must(t, err)
	_, err = d.CreateConnection(ctx, w.ID, "default", directory.ConnectionBody{Name: canary("connection"), Profile: canary("profile")})
	must(t, err)
	host := strings.ToLower(canary("host"))
	_, err = d.CreateConnection(ctx, w.ID, "default", directory.ConnectionBody{Name: canary("doomed connection"), Host: host, Port: 5432})
	must(t, err)
	must(t, d.DeleteConnection(ctx, w.ID, string(canaries["doomed connection"]))) // freed pages are scanned too
	_, err = d.SetGateway(ctx, w.ID, string(canaries["connection"]), directory.GatewayBody{Address: netip.MustParseAddrPort("203.0.113.99:15432"), TLS: directory.GatewayMutual,
		Allow: []netip.Prefix{netip.MustParsePrefix("198.51.100.88/32")}, ClientCA: caPEM(t, canary("gateway CA"))})
	must(t, err)
	canaries["gateway address"], canaries["gateway allowlist"] = []byte("203.0.113.99"), []byte("198.51.100.88")
	_, text, err := d.CreateAdminToken(ctx, w.ID, canary("token"), 0)
	must(t, err)
	canaries["token text"], canaries["first token text"] = text.Expose(), in.Token.Expose()
	_, join, err := d.CreateJoinToken(ctx, w.ID, "default", 0, "")
	must(t, err)
	canaries["join token"] = bytes.Clone(join.Expose())
	a, err := d.Enroll(ctx, join, directory.Enrolment{Name: canary("agent"), Hostname: canary("hostname"), Version: canary("version"),
		SPKI: spki(1), LogKey: spki(2)}, issues("s", 1))
	must(t, err)
	d.AgentSeen(a.ID, directory.Facts{Hostname: canary("new hostname"), ConfigDigest: canary("digest"), ReloadError: canary("reload error"),
		SourceAddress: netip.MustParseAddr("2001:db8:7f3a:91ca:aaaa:bbbb:cccc:1"), Profiles: []protocol.ProfileOffer{{Name: canary("offer")}}})
	canaries["agent address"] = []byte("2001:db8:7f3a:91ca:aaaa:bbbb:cccc:1")
	_, err = d.CreateTeam(ctx, w.ID, canary("team"))
	must(t, err)
	_, err = d.CreateProject(ctx, founder(d), w.ID, canary("doomed project"))
	must(t, err)
	_, err = d.RenameProject(ctx, founder(d), w.ID, string(canaries["doomed project"]), canary("project"))
	must(t, err)
	_, err = d.CreateFolder(ctx, founder(d), w.ID, string(canaries["project"]), canary("folder"))
	must(t, err)
	boss, _, err := d.CreateOwnerToken(ctx, w.ID, "boss", 0)
	must(t, err)
	by := directory.By{ID: boss.Principal.ID}
	_, err = d.CreateRole(ctx, by, w.ID, canary("role"), []authz.Action{authz.Query})
	must(t, err)
	_, err = d.CreateGrant(ctx, by, w.ID, directory.NewGrant{Principal: by.ID, Role: "analyst", From: []netip.Prefix{netip.MustParsePrefix("198.51.100.66/32")}})
	must(t, err)
	canaries["grant network"] = []byte("198.51.100.66")
	must(t, d.SetAllowlist(ctx, w.ID, []netip.Prefix{netip.MustParsePrefix("203.0.113.77/32")}, netip.Addr{}, true))
	canaries["allowlist"] = []byte("203.0.113.77")
	must(t, d.PutSetting(ctx, "", "audit key", secret.FromString(canary("setting"))))
	must(t, d.PutSetting(ctx, "", "audit key", secret.FromString(canary("next setting"))))
	ca := authority(t, w.ID)
	must(t, d.PutAuthority(ctx, ca, false))
	canaries["authority key"] = bytes.Clone(ca.Key.Expose()[30:62])
	kek, err := os.ReadFile(c.KEKFile)
	must(t, err)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(kek)))
	must(t, err)
	canaries["KEK"] = raw

	t.Run("P7 while it runs", func(t *testing.T) { scan(t, dir, canaries) })
	must(t, d.Close())
	t.Run("P7 after it ended", func(t *testing.T) { scan(t, dir, canaries) })
	t.Run("P7 the scan finds what is there", func(t *testing.T) {
		b, err := os.ReadFile(filepath.Join(dir, store.File))
		must(t, err)
		if !bytes.Contains(b, []byte(a.ID)) || len(canaries) < 20 {
			t.Fatal("the scan is void")
		}
		for enc, form := range encodings([]byte("Canary-x-7f3a91Zq")) {
			if len(form) < 12 {
				t.Fatalf("%s looks for %q only", enc, form)
			}
		}
	})

	restore := func(t *testing.T) directory.Config {
		other := t.TempDir()
		b, err := os.ReadFile(filepath.Join(dir, store.File))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(other, store.File), b, 0o600))
		return directory.DefaultConfig(other)
	}
	t.Run("P22 without the key nothing opens", func(t *testing.T) {
		c := restore(t)
		if _, err := directory.Open(t.Context(), c); !vault.IsMissing(err) {
			t.Fatal(err)
		}
		_, err := vault.NewKEKFile(c.KEKFile)
		must(t, err)
		if _, err := directory.Open(t.Context(), c); !errors.Is(err, vault.ErrOpen) {
			t.Fatal("M7 another key:", err)
		}
		if _, err := directory.Init(t.Context(), directory.InitConfig{Config: c}); err == nil {
			t.Fatal("Init takes over a database that it cannot open")
		}
	})
	t.Run("P22 with the key everything opens", func(t *testing.T) {
		c := restore(t)
		must(t, os.WriteFile(c.KEKFile, kek, 0o600))
		d := reopen(t, c)
		w, err := d.Snapshot().Workspace(string(canaries["workspace"]))
		must(t, err)
		if a := w.Agents[0]; a.Name != string(canaries["agent"]) || a.Latest().Hostname != string(canaries["new hostname"]) {
			t.Fatalf("%+v", a)
		}
		got, err := d.Authority(t.Context(), w.ID)
		if err != nil || !got.Key.Equal(ca.Key) || len(got.Chain) != 2 {
			t.Fatal(err)
		}
		s, err := d.Setting(t.Context(), "", "audit key")
		if err != nil || s.ExposeString() != string(canaries["next setting"]) {
			t.Fatal(err)
		}
	})
}

// Whoever can write to the database but holds no key gains nothing by it.
func TestRowsChangedByHandAreRefused(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	for _, n := range []string{"one", "two"} {
		_, err := d.CreateConnection(t.Context(), "default", "default", directory.ConnectionBody{Name: n, Profile: n})
		must(t, err)
	}
	w, _ := d.Snapshot().Workspace("default")
	admin := w.Tokens[0].Principal.Principal
	low, _, err := d.CreateToken(t.Context(), admin, "default", directory.NewToken{Name: "low", Roles: []authz.Role{authz.Analyst}})
	must(t, err)
	one, _ := w.Connection("one")
	_, err = d.CreateTeam(t.Context(), "default", "night")
	must(t, err)
	owner := directory.By{ID: admin.ID}
	_, err = d.AddMember(t.Context(), owner, "default", "night", admin.ID)
	must(t, err)
	limited, err := d.CreateGrant(t.Context(), owner, "default", directory.NewGrant{Principal: low.Principal.ID, Role: "operator", Environment: authz.Test,
		Until: time.Now().Add(time.Hour), From: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	must(t, err)
	_, err = d.CreateRole(t.Context(), owner, "default", "reader", []authz.Action{authz.Query})
	must(t, err)
	for _, p := range []string{"sales", "plant"} {
		_, err = d.CreateProject(t.Context(), founder(d), "default", p)
		must(t, err)
		_, err = d.CreateFolder(t.Context(), founder(d), "default", p, "reports")
		must(t, err)
	}
	_, err = d.CreateFolder(t.Context(), founder(d), "default", "sales", "reports/monthly")
	must(t, err)
	_, err = d.MoveConnection(t.Context(), owner, "default", "one", directory.Place{Project: "sales", Folder: "reports"})
	must(t, err)
	inSales, err := d.CreateGrant(t.Context(), owner, "default", directory.NewGrant{Principal: low.Principal.ID, Role: "operator", In: directory.Place{Project: "sales", Folder: "reports"}})
	must(t, err)
	must(t, d.Close())
	pristine, err := os.ReadFile(filepath.Join(dir, store.File))
	must(t, err)
	for name, q := range map[string]string{
		"swapped connections": `UPDATE connections SET sealed = (SELECT sealed FROM connections o WHERE o.id <> connections.id LIMIT 1)`,
		"an older version":    `UPDATE connections SET version = version + 1`,
		"a grant widened":     `UPDATE grants SET role = 'admin'`,
		"a grant moved":       `UPDATE grants SET principal = '` + low.Principal.ID + `'`,
		"a grant made": `INSERT INTO grants (id, workspace, principal, role, created, tag) SELECT 'gra_x', workspace, '` + low.Principal.ID +
			`', 'admin', 1, tag FROM grants WHERE role = 'owner'`,
		"a grant on a connection made whole": `UPDATE grants SET connection = '` + one.ID + `' WHERE role = 'owner'`,
		"a grant given to a team":            `UPDATE grants SET principal = NULL, team = (SELECT id FROM teams) WHERE id = '` + limited.ID + `'`,
		"a grant in another environment":     `UPDATE grants SET environment = 'production' WHERE id = '` + limited.ID + `'`,
		"a grant without its environment":    `UPDATE grants SET environment = '' WHERE id = '` + limited.ID + `'`,
		"a grant prolonged":                  `UPDATE grants SET until = until + 1 WHERE id = '` + limited.ID + `'`,
		"a grant without end":                `UPDATE grants SET until = 0 WHERE id = '` + limited.ID + `'`,
		"a grant from everywhere":            `UPDATE grants SET sealed = NULL WHERE id = '` + limited.ID + `'`,
		"a grant from no sealed network":     `UPDATE grants SET sealed = x'' WHERE id = '` + limited.ID + `'`,
		"a grant on a whole project":         `UPDATE grants SET folder = NULL WHERE id = '` + inSales.ID + `'`,
		"a grant on no project":              `UPDATE grants SET folder = NULL, project = NULL WHERE id = '` + inSales.ID + `'`,
		"a grant on another project":         `UPDATE grants SET folder = NULL, project = (SELECT id FROM projects WHERE id <> grants.project) WHERE id = '` + inSales.ID + `'`,
		"a grant on the folder below":        `UPDATE grants SET folder = (SELECT id FROM folders WHERE parent = grants.folder) WHERE id = '` + inSales.ID + `'`,
		"a connection moved":                 `UPDATE placements SET folder = NULL`,
		"a connection in another project":    `UPDATE placements SET folder = NULL, project = (SELECT id FROM projects WHERE id <> placements.project)`,
		"another connection in the project":  `UPDATE placements SET connection = (SELECT id FROM connections WHERE id <> placements.connection)`,
		"a project's name from another":      `UPDATE projects SET sealed = (SELECT sealed FROM projects o WHERE o.id <> projects.id)`,
		"an older version of a project":      `UPDATE projects SET version = version + 1`,
		"a folder's path from another":       `UPDATE folders SET sealed = (SELECT sealed FROM folders o WHERE o.id <> folders.id LIMIT 1)`,
		"a folder in another project":        `UPDATE folders SET project = (SELECT id FROM projects WHERE id <> folders.project) WHERE id IN (SELECT id FROM folders WHERE parent IS NULL AND id NOT IN (SELECT parent FROM folders WHERE parent IS NOT NULL))`,
		"a member made":                      `INSERT INTO team_members SELECT workspace, team, '` + low.Principal.ID + `', created, tag FROM team_members`,
		"a member moved":                     `UPDATE team_members SET principal = '` + low.Principal.ID + `'`,
		"an older version of a role":         `UPDATE roles SET version = version + 1`,
		"a role's actions from a team":       `UPDATE roles SET sealed = (SELECT sealed FROM teams)`,
		"a team's name from elsewhere":       `UPDATE teams SET sealed = (SELECT sealed FROM agent_groups LIMIT 1)`,
		"a token prolonged":                  `UPDATE api_tokens SET expires = expires + 1`,
		"a token given to another":           `UPDATE api_tokens SET principal = '` + admin.ID + `'`,
		"a token's verifier replaced":        `UPDATE api_tokens SET verifier = (SELECT verifier FROM api_tokens WHERE id = '` + low.ID + `')`,
		"a token's digest moved": `UPDATE api_tokens SET digest = zeroblob(32) WHERE principal = '` + admin.ID +
			`'; UPDATE api_tokens SET digest = randomblob(32) WHERE principal = '` + low.Principal.ID + `'`,
		"another workspace's key": `UPDATE workspaces SET key_wrapped = (SELECT key_wrapped FROM installation)`,
		"the installation's id":   `UPDATE installation SET id = 'in_x'`,
		"an allowlist entry copied": `INSERT INTO allowlist (id, workspace, version, sealed) SELECT 'alw_x', workspace, 1, sealed
			FROM allowlist LIMIT 1`,
	} {
		t.Run(name, func(t *testing.T) { refusedState(t, c, pristine, q) })
	}
}

func TestChangesByAnotherProcessAreSeen(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	c.Poll, c.StaleAfter = 10*time.Millisecond, 100*time.Millisecond
	serve, cli := reopen(t, c), reopen(t, c)
	changed := serve.Changed()
	g, err := cli.CreateGroup(t.Context(), "default", "west")
	must(t, err)
	<-changed
	eventually(t, "P11 the group is seen", func() bool {
		w, err := serve.Snapshot().Workspace("default")
		if err != nil {
			return false
		}
		got, err := w.Group("west")
		return err == nil && got.ID == g.ID
	})
	w, err := cli.CreateWorkspace(t.Context(), "other")
	must(t, err)
	eventually(t, "a workspace with a key of its own is seen", func() bool { _, err := serve.Snapshot().Workspace(w.ID); return err == nil })
	must(t, cli.DeleteWorkspace(t.Context(), "other"))
	eventually(t, "J13 it is gone", func() bool { _, err := serve.Snapshot().Workspace(w.ID); return err != nil })

	t.Run("P11 a state that cannot be read lets nobody in, and recovers", func(t *testing.T) {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, store.File)+"?_pragma=busy_timeout(5000)")
		must(t, err)
		defer db.Close()
		var id string
		var sealed []byte
		must(t, db.QueryRow("SELECT id, sealed FROM agent_groups LIMIT 1").Scan(&id, &sealed))
		set := func(b []byte) {
			_, err := db.Exec("UPDATE agent_groups SET sealed = ? WHERE id = ?; UPDATE generation SET value = value + 1", b, id)
			must(t, err)
		}
		set(append(bytes.Clone(sealed), 0))
		if serve.Snapshot().Stale {
			t.Fatal("closed before its time")
		}
		eventually(t, "nobody is let in", func() bool { return serve.Snapshot().Stale })
		if _, err := serve.Snapshot().Workspace("default"); err == nil || serve.Health(t.Context()) == nil {
			t.Fatal("the closed snapshot lets in")
		}
		want(t, serve.Snapshot().CheckCertificate("a", "b", "c", "d", nil, time.Now()), protocol.CodeUnavailable)
		set(sealed)
		eventually(t, "it recovers", func() bool { _, err := serve.Snapshot().Workspace("default"); return err == nil })
		must(t, serve.Health(t.Context()))
	})
}

func TestInitRefusesASecondTime(t *testing.T) {
	c := directory.DefaultConfig(filepath.Join(t.TempDir(), "new", "folder"))
	if _, err := directory.Open(t.Context(), c); !errors.Is(err, directory.ErrNotInitialised) {
		t.Fatal(err)
	}
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	kek, err := os.ReadFile(c.KEKFile)
	must(t, err)
	_, err = directory.Init(t.Context(), directory.InitConfig{Config: c})
	want(t, err, protocol.CodeConflict)
	if after, _ := os.ReadFile(c.KEKFile); !bytes.Equal(kek, after) {
		t.Fatal("the key was replaced")
	}
	w, err := reopen(t, c).Snapshot().Workspace("default")
	must(t, err)
	if !w.Allowlist.Contains(netip.MustParseAddr("127.0.0.1")) || w.Allowlist.Contains(netip.MustParseAddr("192.0.2.1")) {
		t.Fatal("E6 the first allowlist is not this machine alone")
	}
	t.Run("two at once make one", func(t *testing.T) {
		c := directory.DefaultConfig(t.TempDir())
		_, err := vault.NewKEKFile(c.KEKFile)
		must(t, err)
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() { _, errs[i] = directory.Init(context.Background(), directory.InitConfig{Config: c}) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			}
		}
		if won != 1 {
			t.Fatal(won, errs)
		}
		reopen(t, c)
	})
}

func TestRotateKEK(t *testing.T) {
	dir := t.TempDir()
	c := directory.DefaultConfig(dir)
	_, err := directory.Init(t.Context(), directory.InitConfig{Config: c})
	must(t, err)
	d, err := directory.Open(t.Context(), c)
	must(t, err)
	_, err = d.CreateWorkspace(t.Context(), "second")
	must(t, err)
	next := filepath.Join(dir, "next.key")
	if err := d.RotateKEK(t.Context(), vault.Config{KEKFile: next}); err == nil {
		t.Fatal("rotated to a key that is not there")
	}
	_, err = vault.NewKEKFile(next)
	must(t, err)
	for range 2 { // a second run is idle
		must(t, d.RotateKEK(t.Context(), vault.Config{KEKFile: next}))
	}
	_, err = d.CreateWorkspace(t.Context(), "third")
	must(t, err)
	must(t, d.Close())
	if _, err := directory.Open(t.Context(), c); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("M4 the old key still opens", err)
	}
	c.KEKFile = next
	s := reopen(t, c).Snapshot()
	for _, n := range []string{"default", "second", "third"} {
		if _, err := s.Workspace(n); err != nil {
			t.Fatal(n, err)
		}
	}
}

func TestAuthoritiesAndSettings(t *testing.T) {
	d, in := start(t)
	_, err := d.Authority(t.Context(), "")
	want(t, err, protocol.CodeNotFound)
	root, next := authority(t, ""), authority(t, "")
	must(t, d.PutAuthority(t.Context(), root, false))
	want(t, d.PutAuthority(t.Context(), next, false), protocol.CodeConflict)
	if got, err := d.Authority(t.Context(), ""); err != nil || !got.Key.Equal(root.Key) || !got.Chain[0].Equal(root.Chain[0]) {
		t.Fatal(err)
	}
	must(t, d.PutAuthority(t.Context(), next, true))
	if got, err := d.Authority(t.Context(), ""); err != nil || !got.Key.Equal(next.Key) {
		t.Fatal(err)
	}
	want(t, d.PutAuthority(t.Context(), authority(t, "ws_none"), false), protocol.CodeNotFound)
	must(t, d.PutAuthority(t.Context(), authority(t, in.Workspace), false))
	if err := d.PutAuthority(t.Context(), directory.Authority{}, false); err == nil {
		t.Fatal("an empty one")
	}
	_, err = d.Setting(t.Context(), in.Workspace, "x")
	want(t, err, protocol.CodeNotFound)
	must(t, d.PutSetting(t.Context(), in.Workspace, "x", secret.FromString("1")))
	must(t, d.PutSetting(t.Context(), in.Workspace, "x", secret.FromString("2")))
	if v, err := d.Setting(t.Context(), in.Workspace, "x"); err != nil || v.ExposeString() != "2" {
		t.Fatal(err)
	}
	_, err = d.Setting(t.Context(), "", "x")
	want(t, err, protocol.CodeNotFound)
	want(t, d.PutSetting(t.Context(), "ws_none", "x", secret.FromString("2")), protocol.CodeNotFound)

	id, err := d.PutRelay(t.Context(), directory.Relay{Name: "second", Addresses: []string{"b:443"}})
	must(t, err)
	_, err = d.PutRelay(t.Context(), directory.Relay{ID: id, Name: "second", Addresses: []string{"c:443"}})
	must(t, err)
	_, err = d.PutRelay(t.Context(), directory.Relay{ID: "rel_none"})
	want(t, err, protocol.CodeNotFound)
	i := slices.IndexFunc(d.Snapshot().Relays, func(r directory.Relay) bool { return r.ID == id })
	if len(d.Snapshot().Relays) != 2 || d.Snapshot().Relays[i].Addresses[0] != "c:443" || d.Snapshot().Relays[i].Created.IsZero() {
		t.Fatalf("%+v", d.Snapshot().Relays)
	}
}

// refusedState wants a state that was changed by hand to be refused.
func refusedState(t *testing.T, c directory.Config, pristine []byte, q string) {
	t.Helper()
	c.Dir = t.TempDir()
	must(t, os.WriteFile(filepath.Join(c.Dir, store.File), pristine, 0o600))
	db, err := sql.Open("sqlite", filepath.Join(c.Dir, store.File))
	must(t, err)
	_, err = db.Exec(q)
	must(t, errors.Join(err, db.Close()))
	if d, err := directory.Open(t.Context(), c); err == nil {
		_ = d.Close()
		t.Fatal("accepted")
	}
}
