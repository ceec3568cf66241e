package vault_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/vault"
)

func kek(t testing.TB) vault.KEK {
	t.Helper()
	k, err := vault.NewKEKFile(filepath.Join(t.TempDir(), "k"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t testing.TB, k vault.KEK) *vault.Vault {
	t.Helper()
	v, err := vault.New(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func create(t testing.TB, v *vault.Vault, workspace string) []byte {
	t.Helper()
	w, id, err := v.CreateKey(t.Context(), "in_1", workspace)
	if err != nil || id != v.KEKID() {
		t.Fatal(id, err)
	}
	return w
}

func TestWorkspacesHaveKeysOfTheirOwn(t *testing.T) {
	k := kek(t)
	v := open(t, k)
	a, b := create(t, v, "ws_a"), create(t, v, "ws_b")
	p := vault.Place{Workspace: "ws_a", Table: "t", Row: "r", Column: "c", Version: 1}
	sealed, err := v.Seal(p, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	q := p
	q.Workspace = "ws_b"
	if _, err := v.Open(q, sealed); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("P9 another workspace opens it", err)
	}
	q.Workspace = "ws_c"
	if _, err := v.Open(q, sealed); !errors.Is(err, vault.ErrNoKey) {
		t.Fatal(err)
	}
	if _, err := v.Seal(q, nil); !errors.Is(err, vault.ErrNoKey) {
		t.Fatal(err)
	}

	again := open(t, k)
	if err := again.LoadKey(t.Context(), "in_1", "ws_a", b); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("a wrapped key loads for another workspace", err)
	}
	if err := again.LoadKey(t.Context(), "in_2", "ws_a", a); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("a wrapped key loads in another installation", err)
	}
	if err := again.LoadKey(t.Context(), "in_1", "ws_a", a); err != nil {
		t.Fatal(err)
	}
	if got, err := again.Open(p, sealed); err != nil || string(got) != "secret" {
		t.Fatal(err)
	}
	again.Forget("ws_a")
	if _, err := again.Open(p, sealed); !errors.Is(err, vault.ErrNoKey) {
		t.Fatal("forgotten and it opens", err)
	}
	if _, _, err := v.CreateKey(t.Context(), "in_1", "ws_a"); err == nil {
		t.Fatal("a loaded key was replaced")
	}
	if err := open(t, kek(t)).LoadKey(t.Context(), "in_1", "ws_a", a); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("M7 another key-encryption key opens it", err)
	}
}

func TestDigests(t *testing.T) {
	v := open(t, kek(t))
	create(t, v, "ws_a")
	create(t, v, "ws_b")
	seen := map[[32]byte]string{}
	for _, ws := range []string{"ws_a", "ws_b"} {
		for p := vault.NameOfWorkspace; p <= vault.ACMEKey; p++ {
			for _, text := range []string{"", "sales", "Sales", strings.Repeat("long", 100)} {
				d, err := v.Digest(ws, p, text)
				d2, _ := v.Digest(ws, p, text)
				if err != nil || d != d2 {
					t.Fatal("a digest is not stable", err)
				}
				if at, ok := seen[d]; ok {
					t.Fatalf("%s %d %.5q has the digest of %s", ws, p, text, at)
				}
				seen[d] = ws + text
			}
		}
	}
	if _, err := v.Digest("ws_c", vault.APIToken, "x"); !errors.Is(err, vault.ErrNoKey) {
		t.Fatal(err)
	}
}

func TestM4RewrapCanBeInterrupted(t *testing.T) {
	from, to := kek(t), kek(t)
	v := open(t, from)
	wrapped := create(t, v, "ws_a")
	p := vault.Place{Workspace: "ws_a", Row: "r"}
	sealed, err := v.Seal(p, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	once, err := v.Rewrap(t.Context(), to, "in_1", "ws_a", wrapped)
	if err != nil {
		t.Fatal(err)
	}
	twice, err := v.Rewrap(t.Context(), to, "in_1", "ws_a", once)
	if err != nil || string(twice) != string(once) {
		t.Fatal("a second run is not idle", err)
	}
	if _, err := v.Rewrap(t.Context(), to, "in_1", "ws_b", wrapped); !errors.Is(err, vault.ErrOpen) {
		t.Fatal(err)
	}
	v.UseKEK(to)
	if v.KEKID() != to.ID() {
		t.Fatal("the old one is in force")
	}
	after := open(t, to)
	if err := after.LoadKey(t.Context(), "in_1", "ws_a", once); err != nil {
		t.Fatal(err)
	}
	if got, err := after.Open(p, sealed); err != nil || string(got) != "secret" {
		t.Fatal("what was sealed before does not open after", err)
	}
	if err := open(t, from).LoadKey(t.Context(), "in_1", "ws_a", once); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("the old key still opens", err)
	}
}

func TestLoadKEKWantsExactlyOneSource(t *testing.T) {
	for _, c := range []vault.Config{{}, {KEKFile: "a", KEKEnv: "b"}, {KEKFile: filepath.Join(t.TempDir(), "none")}, {KEKEnv: "FAIRLEAD_TEST_NONE"}} {
		if _, err := vault.LoadKEK(c); err == nil {
			t.Errorf("%+v", c)
		}
	}
	if _, err := vault.New(t.Context(), nil); err == nil {
		t.Error("a vault without a key")
	}
}

func TestVerifier(t *testing.T) { t.Run("F17 a hash that was tampered with", testVerifier) }

func testVerifier(t *testing.T) {
	const token = "flt_0123456789"
	v, err := vault.NewVerifier(token)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(v, token) || !strings.HasPrefix(v, "pbkdf2-sha512$210000$") {
		t.Fatal(v)
	}
	if w, _ := vault.NewVerifier(token); w == v {
		t.Fatal("no salt")
	}
	if !vault.Verify(v, token) {
		t.Fatal("the token does not verify")
	}
	parts := strings.Split(v, "$")
	join := func(a, b, c, d string) string { return strings.Join([]string{a, b, c, d}, "$") }
	for name, c := range map[string][2]string{
		"another token":   {v, token + "x"},
		"no token":        {v, ""},
		"empty":           {"", ""},
		"fewer rounds":    {join(parts[0], "1", parts[2], parts[3]), token},
		"endless rounds":  {join(parts[0], "99999999999", parts[2], parts[3]), token},
		"negative rounds": {join(parts[0], "-210000", parts[2], parts[3]), token},
		"another scheme":  {join("plain", parts[1], parts[2], parts[3]), token},
		"short salt":      {join(parts[0], parts[1], "AAAA", parts[3]), token},
		"short hash":      {join(parts[0], parts[1], parts[2], parts[3][:8]), token},
		"no hash":         {join(parts[0], parts[1], parts[2], ""), token},
		"not base64":      {join(parts[0], parts[1], parts[2], "!"+parts[3][1:]), token},
		"more parts":      {v + "$", token},
	} {
		if vault.Verify(c[0], c[1]) {
			t.Errorf("F17 %s verifies", name)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	v := open(b, kek(b))
	create(b, v, "")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Digest("", vault.APIToken, "flt_0123456789012345678901234567890123456789012"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	v, err := vault.NewVerifier("flt_x")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		vault.Verify(v, "flt_x")
	}
}

func TestVerifyInTellsWhatIsStale(t *testing.T) {
	v, err := vault.NewVerifierOf("velvet otter", vault.MinRounds)
	if err != nil {
		t.Fatal(err)
	}
	if ok, stale := vault.VerifyIn(v, "velvet otter", vault.MinRounds); !ok || stale {
		t.Error("the present number of rounds:", ok, stale)
	}
	if ok, stale := vault.VerifyIn(v, "velvet otter", vault.MinRounds+1); !ok || !stale {
		t.Error("the number has risen:", ok, stale)
	}
	if ok, _ := vault.VerifyIn(v, "velvet otters", vault.MinRounds+1); ok {
		t.Error("another text verifies")
	}
	for _, none := range []string{"", "pbkdf2-sha512$1$AAAA$AAAA", v + "$"} {
		if ok, _ := vault.VerifyIn(none, "", vault.MinRounds); ok {
			t.Errorf("%q verifies", none)
		}
	}
	for _, rounds := range []int{0, vault.MinRounds - 1, vault.MaxRounds + 1} {
		if _, err := vault.NewVerifierOf("x", rounds); err == nil {
			t.Errorf("%d rounds are taken", rounds)
		}
	}
}
