package passkey_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/relay/passkey"
	"github.com/fairleadhq/fairlead/relay/passkey/passkeytest"
)

const (
	rp     = "relay.example.com"
	origin = "https://relay.example.com:8443"
)

var anna = passkey.Owner{Handle: "per_anna", Name: "anna"}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ceremonies(t testing.TB) *passkey.Ceremonies {
	t.Helper()
	c, err := passkey.New(passkey.DefaultConfig(rp, []string{origin}))
	must(t, err)
	return c
}

func text(t testing.TB, m map[string]any) []byte {
	t.Helper()
	b, err := json.Marshal(m)
	must(t, err)
	return b
}

// register makes a passkey for anna.
func register(t testing.TB, c *passkey.Ceremonies, a *passkeytest.Authenticator, w passkeytest.Wrong) (passkey.Credential, error) {
	t.Helper()
	id, opts, err := c.BeginRegister(anna, "s1", nil)
	must(t, err)
	o, err := c.Take(passkey.Register, id, "s1")
	must(t, err)
	return o.Register(text(t, a.Create(t, opts, w)), anna)
}

// signIn answers a ceremony.
func signIn(t testing.TB, c *passkey.Ceremonies, a *passkeytest.Authenticator, have passkey.Credential, w passkeytest.Wrong) (passkey.Used, error) {
	t.Helper()
	id, opts, err := c.BeginSignIn("192.0.2.1/32", "192.0.2.1/32")
	must(t, err)
	o, err := c.Take(passkey.SignIn, id, "")
	must(t, err)
	answer, err := c.Read(text(t, a.Get(t, opts, w)))
	if err != nil {
		return passkey.Used{}, err
	}
	return o.Verify(answer, anna, have)
}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	if r := (*passkey.Refusal)(nil); !errors.As(err, &r) || r.Reason == "" {
		t.Errorf("%s: %v", what, err)
	}
}

func TestEveryOfferedAlgorithmSignsIn(t *testing.T) {
	c := ceremonies(t)
	for _, alg := range []int{passkeytest.ES256, passkeytest.EdDSA, passkeytest.RS256} {
		a := passkeytest.New(origin)
		have, err := register(t, c, a, passkeytest.Wrong{Algorithm: alg})
		if err != nil {
			t.Fatal(alg, err)
		}
		if !have.Eligible || !have.BackedUp || have.Count != 0 || len(have.Transports) != 2 {
			t.Errorf("%d: %+v", alg, have)
		}
		for n := uint32(1); n < 3; n++ {
			used, err := signIn(t, c, a, have, passkeytest.Wrong{})
			if err != nil || used.Count != n || used.Back || !used.BackedUp {
				t.Errorf("%d: %+v, %v", alg, used, err)
			}
			have.Count = used.Count
		}
	}
}

func TestOptionsDemandWhatIsVerified(t *testing.T) {
	c := ceremonies(t)
	_, b, err := c.BeginRegister(anna, "s1", []passkey.Credential{{ID: []byte("have-this-one-already")}})
	must(t, err)
	var o struct {
		Attestation string
		Challenge   string
		Timeout     int
		RP          struct{ ID string }
		User        struct{ ID, Name string }
		Exclude     []struct{ ID, Type string }                    `json:"excludeCredentials"`
		Params      []struct{ Alg int }                            `json:"pubKeyCredParams"`
		Selection   struct{ ResidentKey, UserVerification string } `json:"authenticatorSelection"`
	}
	must(t, json.Unmarshal(b, &o))
	challenge, err := base64.RawURLEncoding.DecodeString(o.Challenge)
	must(t, err)
	user, err := base64.RawURLEncoding.DecodeString(o.User.ID)
	must(t, err)
	if o.Attestation != "none" || len(challenge) < 32 || o.Timeout != 300_000 || o.RP.ID != rp || string(user) != anna.Handle || len(o.Exclude) != 1 ||
		len(o.Params) != 3 || o.Params[0].Alg != -7 || o.Params[1].Alg != -8 || o.Params[2].Alg != -257 || o.Selection.ResidentKey != "required" || o.Selection.UserVerification != "required" {
		t.Errorf("%s", b)
	}
	_, b, err = c.BeginSignIn("n", "n")
	must(t, err)
	if s := string(b); !strings.Contains(s, `"userVerification":"required"`) || strings.Contains(s, "allowCredentials") || !strings.Contains(s, `"rpId":"`+rp+`"`) {
		t.Error(s)
	}
}

func TestAnswersWithOneThingWrongAreRefused(t *testing.T) {
	c := ceremonies(t)
	a := passkeytest.New(origin)
	have, err := register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	other := base64.RawURLEncoding.EncodeToString([]byte("another challenge, of 32 bytes!!"))
	both := map[string]passkeytest.Wrong{
		"another origin":              {Origin: "https://evil.example.com"},
		"another port":                {Origin: "https://relay.example.com"},
		"another scheme":              {Origin: "http://relay.example.com:8443"},
		"an origin with a path":       {Origin: origin + "/"},
		"an origin in capitals":       {Origin: "https://RELAY.example.com:8443"},
		"a host below":                {Origin: "https://a.relay.example.com:8443"},
		"a frame of another page":     {CrossOrigin: true},
		"another relying party":       {RP: "example.com"},
		"another challenge":           {Challenge: other},
		"no user verified":            {Flags: passkeytest.UV},
		"no user present":             {Flags: passkeytest.UP},
		"backed up, but not eligible": {Flags: passkeytest.BE},
		"data cut":                    {Data: func(b []byte) []byte { return b[:36] }},
		"data too long":               {Data: func(b []byte) []byte { return append(b, 0) }},
	}
	for what, w := range both {
		_, err := register(t, c, passkeytest.New(origin), w)
		refused(t, "register: "+what, err)
		_, err = signIn(t, c, a, have, w)
		refused(t, "sign in: "+what, err)
	}
	for what, w := range map[string]passkeytest.Wrong{
		"an answer to signing in":   {Type: "webauthn.get"},
		"an algorithm not offered":  {Algorithm: passkeytest.ES384},
		"an attestation":            {Format: "fido-u2f"},
		"a TPM's attestation":       {Format: "tpm"},
		"a signature that is empty": {Format: "packed"},
		"an id too long":            {ID: make([]byte, 1024)},
		"no id":                     {ID: []byte{}},
		"an answer too long":        {Data: func(b []byte) []byte { return append(b, make([]byte, 12<<10)...) }},
	} {
		_, err := register(t, c, passkeytest.New(origin), w)
		refused(t, "register: "+what, err)
	}
	for what, w := range map[string]passkeytest.Wrong{
		"an answer to registering": {Type: "webauthn.create"},
		"a changed signature":      {Signature: true},
		"another's handle":         {Handle: []byte("per_otto")},
		"no handle":                {Handle: []byte{}},
		"another id":               {ID: []byte("another id of a passkey")},
		"an answer too long":       {Data: func(b []byte) []byte { return append(b, make([]byte, 12<<10)...) }},
	} {
		_, err := signIn(t, c, a, have, w)
		refused(t, "sign in: "+what, err)
	}
	if _, err := signIn(t, c, a, have, passkeytest.Wrong{}); err != nil {
		t.Error("all of this kept the good one out:", err)
	}
}

func TestACounterThatDoesNotGoOnIsTold(t *testing.T) {
	c := ceremonies(t)
	a := passkeytest.New(origin)
	have, err := register(t, c, a, passkeytest.Wrong{Count: 7})
	must(t, err)
	for count, back := range map[uint32]bool{8: false, 1000: false, 7: true, 6: true, 1: true} {
		used, err := signIn(t, c, a, have, passkeytest.Wrong{Count: count})
		if err != nil || used.Back != back {
			t.Errorf("%d after 7: %+v, %v", count, used, err)
		}
	}
	a = passkeytest.New(origin) // one that does not count
	have, err = register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	if used, err := signIn(t, c, a, have, passkeytest.Wrong{StandStill: true}); err != nil || used.Back {
		t.Errorf("%+v, %v", used, err)
	}
}

func TestACeremonyIsForOneAnswerOfItsKindAndSession(t *testing.T) {
	c := ceremonies(t)
	a := passkeytest.New(origin)
	have, err := register(t, c, a, passkeytest.Wrong{})
	must(t, err)
	begin := map[string]func() (string, json.RawMessage, error){
		"sign in":  func() (string, json.RawMessage, error) { return c.BeginSignIn("n", "n") },
		"register": func() (string, json.RawMessage, error) { return c.BeginRegister(anna, "s1", nil) },
		"confirm":  func() (string, json.RawMessage, error) { return c.BeginConfirm(anna, "s1", []passkey.Credential{have}) },
	}
	kinds := map[string]passkey.Kind{"sign in": passkey.SignIn, "register": passkey.Register, "confirm": passkey.Confirm}
	for name, f := range begin {
		for other, kind := range kinds {
			for _, session := range []string{"s1", "s2", ""} {
				id, _, err := f()
				must(t, err)
				_, err = c.Take(kind, id, session)
				own := map[bool]string{true: "", false: "s1"}[name == "sign in"]
				if good := other == name && session == own; good != (err == nil) {
					t.Errorf("%s taken as %s in %q: %v", name, other, session, err)
				}
				if _, err = c.Take(kinds[name], id, own); err == nil && other == name {
					t.Errorf("%s was taken twice", name)
				}
			}
		}
	}
	// The challenge of one does not answer another.
	_, opts, err := c.BeginSignIn("n", "n")
	must(t, err)
	id, _, err := c.BeginSignIn("n", "n")
	must(t, err)
	o, err := c.Take(passkey.SignIn, id, "")
	must(t, err)
	answer, err := c.Read(text(t, a.Get(t, opts, passkeytest.Wrong{})))
	must(t, err)
	_, err = o.Verify(answer, anna, have)
	refused(t, "another ceremony's challenge", err)
	// A passkey that was added after a confirmation began is not one that it asked for.
	id, opts, err = c.BeginConfirm(anna, "s1", []passkey.Credential{{ID: []byte("quite another one")}})
	must(t, err)
	o, err = c.Take(passkey.Confirm, id, "s1")
	must(t, err)
	answer, err = c.Read(text(t, a.Get(t, opts, passkeytest.Wrong{})))
	must(t, err)
	_, err = o.Verify(answer, anna, have)
	refused(t, "one that was not asked for", err)
}

func TestACeremonyEndsAfterFiveMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := ceremonies(t)
		early, _, err := c.BeginSignIn("n", "n")
		must(t, err)
		late, _, err := c.BeginSignIn("n", "n")
		must(t, err)
		time.Sleep(5*time.Minute - time.Second)
		if _, err := c.Take(passkey.SignIn, early, ""); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		_, err = c.Take(passkey.SignIn, late, "")
		refused(t, "after five minutes", err)
	})
}

func TestAFloodOfCeremoniesHasBounds(t *testing.T) {
	conf := passkey.DefaultConfig(rp, []string{origin})
	conf.Strangers, conf.PerNetwork, conf.SignedIn, conf.PerPerson = 10, 3, 10, 2
	c, err := passkey.New(conf)
	must(t, err)
	mine, _, err := c.BeginConfirm(anna, "s1", []passkey.Credential{{ID: []byte("one")}})
	must(t, err)
	quiet, _, err := c.BeginSignIn("quiet", "quiet")
	must(t, err)
	var flood []string
	for range 50 {
		id, _, err := c.BeginSignIn("loud", "loud")
		must(t, err)
		flood = append(flood, id)
	}
	open := 0
	for _, id := range flood {
		if _, err := c.Take(passkey.SignIn, id, ""); err == nil {
			open++
		}
	}
	if open != conf.PerNetwork {
		t.Errorf("one network has %d open", open)
	}
	if _, err := c.Take(passkey.SignIn, quiet, ""); err != nil {
		t.Error("a flood from one network pushed another's out:", err)
	}
	flood = nil
	for i := range 100 {
		id, _, err := c.BeginSignIn(string(rune('a'+i)), string(rune('a'+i)))
		must(t, err)
		flood = append(flood, id)
	}
	open = 0
	for _, id := range flood {
		if _, err := c.Take(passkey.SignIn, id, ""); err == nil {
			open++
		}
	}
	if open != conf.Strangers {
		t.Errorf("%d are open of all", open)
	}
	if _, err := c.Take(passkey.Confirm, mine, "s1"); err != nil {
		t.Error("strangers pushed out who is signed in:", err)
	}
}

func TestOriginsAreTheHostsOwn(t *testing.T) {
	for _, tt := range []struct {
		id      string
		origins []string
		field   string
	}{
		{rp, []string{origin}, ""}, {"example.com", []string{origin, "https://example.com"}, ""}, {"localhost", []string{"https://localhost:8443"}, ""},
		{"", []string{origin}, "id"}, {"Relay.example.com", []string{origin}, "id"}, {"192.0.2.1", []string{"https://192.0.2.1"}, "id"}, {"relay.example.com:8443", []string{origin}, "id"},
		{"com", []string{"https://example.com"}, "id"}, {"relay.example.com.", []string{origin}, "id"}, {rp, nil, "origins"},
		{rp, []string{"https://example.com"}, "origins[0]"}, {rp, []string{"https://evilrelay.example.com"}, "origins[0]"}, {rp, []string{"https://relay.example.com:443"}, "origins[0]"},
		{rp, []string{"https://u@relay.example.com"}, "origins[0]"}, {rp, []string{origin, origin}, "origins[1]"}, {rp, []string{"https://*.relay.example.com"}, "origins[0]"},
		{rp, []string{"https://relay.example.com?"}, "origins[0]"}, {rp, []string{"https://relay.example.com:"}, "origins[0]"}, {rp, []string{"null"}, "origins[0]"},
	} {
		if field, _, _ := passkey.Check(tt.id, tt.origins); field != tt.field {
			t.Errorf("%q %q: %q, want %q", tt.id, tt.origins, field, tt.field)
		}
	}
}

// FuzzAnswers: whatever is sent, it is refused or read, and nothing falls over.
func FuzzAnswers(f *testing.F) {
	c := ceremonies(f)
	a := passkeytest.New(origin)
	_, opts, err := c.BeginRegister(anna, "s1", nil)
	must(f, err)
	f.Add(text(f, a.Create(f, opts, passkeytest.Wrong{})))
	_, opts, err = c.BeginSignIn("n", "n")
	must(f, err)
	f.Add(text(f, a.Get(f, opts, passkeytest.Wrong{})))
	f.Add([]byte(`{"id":"AA","rawId":"AA","type":"public-key","response":{"attestationObject":"oA","clientDataJSON":"e30"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, _, err := c.BeginRegister(anna, "s1", nil)
		must(t, err)
		o, err := c.Take(passkey.Register, id, "s1")
		must(t, err)
		if _, err := o.Register(b, anna); err == nil {
			t.Errorf("a challenge was answered that nobody saw: %q", b)
		}
		id, _, err = c.BeginSignIn("n", "n")
		must(t, err)
		if o, err = c.Take(passkey.SignIn, id, ""); err != nil {
			t.Fatal(err)
		}
		if answer, err := c.Read(b); err == nil {
			if _, err := o.Verify(answer, anna, passkey.Credential{ID: answer.Credential(), Key: []byte{0xa0}}); err == nil {
				t.Errorf("no key signed that: %q", b)
			}
		}
	})
}

// Whoever has a /48 of IPv6 has 65,536 networks: the site has bounds, too, and gives way first when all room is taken.
func TestOneSiteFlushesNobodyElsesCeremonies(t *testing.T) {
	conf := passkey.DefaultConfig(rp, []string{origin})
	conf.Strangers, conf.PerNetwork, conf.PerSite = 40, 3, 20
	c, err := passkey.New(conf)
	must(t, err)
	begin := func(network, site string) string {
		id, _, err := c.BeginSignIn(network, site)
		must(t, err)
		return id
	}
	isOpen := func(id string) bool { _, err := c.Take(passkey.SignIn, id, ""); return err == nil }
	quiet := begin("2001:db8:1::/64", "2001:db8:1::/48")
	var flood []string
	for i := range 1000 {
		flood = append(flood, begin(fmt.Sprintf("2001:db8:2:%x::/64", i), "2001:db8:2::/48"))
	}
	// Of many sites the biggest gives way.
	var others []string
	for i := range 25 {
		others = append(others, begin(fmt.Sprintf("198.51.100.%d/32", i), fmt.Sprintf("198.51.100.%d/32", i)))
	}
	n := 0
	for i, id := range flood {
		if isOpen(id) {
			if n++; i < 1000-conf.PerSite {
				t.Error("an older one of the site is open, and a newer one gave way")
			}
		}
	}
	if n != conf.Strangers-1-len(others) {
		t.Errorf("the site that has the most has %d", n)
	}
	for _, id := range append(others, quiet) {
		if !isOpen(id) {
			t.Error("a flood from one site pushed another's out")
		}
	}
}

// What one more costs does not grow with how many are open.
func BenchmarkBeginInAFullPool(b *testing.B) {
	conf := passkey.DefaultConfig(rp, []string{origin})
	c, err := passkey.New(conf)
	must(b, err)
	for i := range conf.Strangers {
		_, _, err := c.BeginSignIn(fmt.Sprint(i), fmt.Sprint(i/conf.PerSite))
		must(b, err)
	}
	for i := 0; b.Loop(); i++ {
		_, _, err := c.BeginSignIn(fmt.Sprint(i), fmt.Sprint(i/conf.PerSite))
		must(b, err)
	}
}
