package passkey

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"time"

	wa "github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/go-webauthn/webauthn/webauthn"
)

// Config says who the relay is to authenticators, and holds the limits.
type Config struct {
	ID      string   // the relying party's: a host. Passkeys belong to it for good
	Origins []string // where the pages that use passkeys come from, exactly
	Life    time.Duration
	// Open ceremonies: of all strangers, of one network of them, of one site, which has many networks; of all who are signed in, of one
	// person. What is beyond pushes out the oldest of the same network, site or person, else of the site that has the most. Strangers
	// never push out those who are signed in.
	Strangers, PerNetwork, PerSite, SignedIn, PerPerson int
	MaxAnswer                                           int // bytes of an authenticator's answer
	MaxID                                               int // bytes of a credential's id
}

// DefaultConfig gives 5 minutes; 10,000, 20 and 200; 10,000 and 4; 12 KiB; 1023 bytes, which is what WebAuthn allows.
func DefaultConfig(id string, origins []string) Config {
	return Config{ID: id, Origins: origins, Life: 5 * time.Minute, Strangers: 10_000, PerNetwork: 20, PerSite: 200, SignedIn: 10_000, PerPerson: 4, MaxAnswer: 12 << 10, MaxID: 1023}
}

// Check tells what of an id and its origins is not usable: the field (with an index), what is wrong and what is wanted; "" for
// nothing. An origin is written as a browser writes it.
func Check(id string, origins []string) (field, fault, want string) {
	if id != strings.ToLower(id) || wa.ValidateRPID(id) != nil || strings.HasSuffix(id, ".") || id != "localhost" && !strings.Contains(id, ".") {
		return "id", "is not a host", "a name in small letters, as relay.example.com; no scheme, no port, no address"
	}
	if len(origins) == 0 {
		return "origins", "is missing", "[https://relay.example.com:8443]: where people open the relay's pages"
	}
	for i, o := range origins {
		at := fmt.Sprintf("origins[%d]", i)
		u, err := url.Parse(o)
		if err != nil || u.Scheme != "https" || u.Hostname() == "" || o != "https://"+u.Host || u.Host != strings.ToLower(u.Host) || u.Port() == "443" || strings.HasSuffix(u.Host, ":") ||
			wa.ValidateRPID(u.Hostname()) != nil || strings.Contains(u.Host, "*") {
			return at, "is not an origin", "https://HOST or https://HOST:PORT in small letters, as a browser writes it: no path, and no port 443"
		}
		if h := u.Hostname(); h != id && !strings.HasSuffix(h, "."+id) {
			return at, "is of another host", "sign_in.passkeys.id itself or a name below it: no browser gives a passkey to another host"
		}
		if slices.Contains(origins[:i], o) {
			return at, "is given twice", "each origin once"
		}
	}
	return "", "", ""
}

// Ceremonies are what is open. Safe for concurrent use.
type Ceremonies struct {
	conf                Config
	lib                 *webauthn.WebAuthn
	strangers, signedIn *pool
}

// New makes Ceremonies, of which none is open.
func New(c Config) (*Ceremonies, error) {
	if field, fault, _ := Check(c.ID, c.Origins); field != "" {
		return nil, fmt.Errorf("passkeys: %s %s", field, fault)
	}
	if c.Life <= 0 || c.Strangers < 1 || c.PerNetwork < 1 || c.PerSite < 1 || c.SignedIn < 1 || c.PerPerson < 1 || c.MaxAnswer < 1 || c.MaxID < 16 {
		return nil, errors.New("passkeys: times and limits must be set")
	}
	lib, err := webauthn.New(&webauthn.Config{RPID: c.ID, RPDisplayName: "Fairlead", RPOrigins: c.Origins, AttestationPreference: wa.PreferNoAttestation,
		AuthenticatorSelection: wa.AuthenticatorSelection{ResidentKey: wa.ResidentKeyRequirementRequired, RequireResidentKey: wa.ResidentKeyRequired(), UserVerification: wa.VerificationRequired},
		Timeouts:               webauthn.TimeoutsConfig{Login: webauthn.TimeoutConfig{Timeout: c.Life}, Registration: webauthn.TimeoutConfig{Timeout: c.Life}},
		// Browsers and password managers tell more than they are asked; nothing of it is used.
		ExtensionsUnsolicitedOutputPolicy: wa.UnsolicitedOutputPolicyIgnore})
	if err != nil {
		return nil, fmt.Errorf("passkeys: %w", err)
	}
	return &Ceremonies{conf: c, lib: lib, strangers: newPool(c.Strangers, c.PerNetwork, c.PerSite, c.Life), signedIn: newPool(c.SignedIn, c.PerPerson, c.PerPerson, c.Life)}, nil
}

// ID is what passkeys are bound to.
func (c *Ceremonies) ID() string { return c.conf.ID }

// Owner is whose passkey it is to an authenticator.
type Owner struct {
	Handle string // random and for good; never a name
	Name   string // shown by the authenticator, nothing else
}

// Credential is what is kept of a passkey. Nothing of it is secret; the key pair's other half never leaves the authenticator.
type Credential struct {
	ID         []byte   `json:"id"`
	Key        []byte   `json:"key"` // COSE
	Count      uint32   `json:"count,omitempty"`
	Eligible   bool     `json:"eligible,omitempty"`  // it may be copied to other devices …
	BackedUp   bool     `json:"backed_up,omitempty"` // … and has been
	Transports []string `json:"transports,omitempty"`
}

// user is what the library asks of a person.
type user struct {
	o     Owner
	creds []webauthn.Credential
}

func (u user) WebAuthnID() []byte                         { return []byte(u.o.Handle) }
func (u user) WebAuthnName() string                       { return u.o.Name }
func (u user) WebAuthnDisplayName() string                { return u.o.Name }
func (u user) WebAuthnCredentials() []webauthn.Credential { return u.creds }

func newUser(o Owner, have []Credential) user {
	u := user{o: o}
	for _, c := range have {
		w := webauthn.Credential{ID: c.ID, PublicKey: c.Key, Flags: webauthn.CredentialFlags{UserPresent: true, UserVerified: true, BackupEligible: c.Eligible, BackupState: c.BackedUp},
			Authenticator: webauthn.Authenticator{SignCount: c.Count}}
		for _, t := range c.Transports {
			w.Transport = append(w.Transport, wa.AuthenticatorTransport(t))
		}
		u.creds = append(u.creds, w)
	}
	return u
}

// Refusal is the error of an answer that does not hold. Its text is for the record, not for the caller.
type Refusal struct{ Reason string }

// Error gives the reason.
func (r *Refusal) Error() string { return r.Reason }

func refuse(err error) error {
	if e := (*wa.Error)(nil); errors.As(err, &e) {
		return &Refusal{e.Details} // DevInfo tells what was sent
	}
	return &Refusal{"the passkey's answer cannot be read"}
}

// RSA keys that are taken, in bits of their modulus.
const (
	minRSA = 2048
	maxRSA = 4096
)

// A Kind of ceremony.
type Kind int

// Kinds of ceremonies. An answer to one is none to another.
const (
	SignIn Kind = iota
	Register
	Confirm
)

// algorithms that a new passkey may use, the best liked first.
var algorithms = []wa.CredentialParameter{
	{Type: wa.PublicKeyCredentialType, Algorithm: webauthncose.AlgES256},
	{Type: wa.PublicKeyCredentialType, Algorithm: webauthncose.AlgEdDSA},
	{Type: wa.PublicKeyCredentialType, Algorithm: webauthncose.AlgRS256},
}

// BeginSignIn opens a ceremony for whoever asks, from a network that belongs to a site. The options are those of PublicKeyCredential.parseRequestOptionsFromJSON
// and name no credentials: the authenticator knows which it has.
func (c *Ceremonies) BeginSignIn(network, site string) (id string, options json.RawMessage, _ error) {
	a, data, err := c.lib.BeginDiscoverableLogin()
	if err != nil {
		return "", nil, fmt.Errorf("begin a passkey ceremony: %w", err)
	}
	return c.open(c.strangers, &ceremony{kind: SignIn, owner: network, site: site}, data, a.Response)
}

// BeginConfirm opens a ceremony in which a person shows again, within a session, that it has one of its passkeys.
func (c *Ceremonies) BeginConfirm(o Owner, session string, have []Credential) (id string, options json.RawMessage, _ error) {
	if len(have) == 0 {
		return "", nil, errors.New("begin a passkey ceremony: there is no passkey")
	}
	a, data, err := c.lib.BeginLogin(newUser(o, have))
	if err != nil {
		return "", nil, fmt.Errorf("begin a passkey ceremony: %w", err)
	}
	return c.open(c.signedIn, &ceremony{kind: Confirm, owner: o.Handle, site: o.Handle, session: session}, data, a.Response)
}

// BeginRegister opens a ceremony that makes a new passkey; those that the person has are told, so that no authenticator makes a
// second one. The options are those of PublicKeyCredential.parseCreationOptionsFromJSON.
func (c *Ceremonies) BeginRegister(o Owner, session string, have []Credential) (id string, options json.RawMessage, _ error) {
	u := newUser(o, have)
	a, data, err := c.lib.BeginRegistration(u, webauthn.WithCredentialParameters(algorithms), webauthn.WithExclusions(webauthn.Credentials(u.creds).CredentialDescriptors()))
	if err != nil {
		return "", nil, fmt.Errorf("begin a passkey ceremony: %w", err)
	}
	return c.open(c.signedIn, &ceremony{kind: Register, owner: o.Handle, site: o.Handle, session: session}, data, a.Response)
}

func (c *Ceremonies) open(p *pool, o *ceremony, data *webauthn.SessionData, options any) (string, json.RawMessage, error) {
	b, err := json.Marshal(options)
	if err != nil {
		return "", nil, fmt.Errorf("begin a passkey ceremony: %w", err)
	}
	o.data = *data
	return p.put(o), b, nil
}

// Open is a ceremony that was taken: it counts no more, whatever comes of it.
type Open struct {
	c *Ceremonies
	o *ceremony
}

// Take takes a ceremony of a kind, by its id and the session that it was begun in ("" for SignIn). One that is of another kind or
// session, has ended, or was taken before, is refused.
func (c *Ceremonies) Take(k Kind, id, session string) (*Open, error) {
	p := c.signedIn
	if k == SignIn {
		p = c.strangers
	}
	o := p.take(id)
	if o == nil || o.kind != k || o.session != session {
		return nil, &Refusal{"the ceremony is not open: it has ended, was answered before, or is another's"}
	}
	return &Open{c, o}, nil
}

// Answer is an assertion that was read and not verified.
type Answer struct {
	parsed *wa.ParsedCredentialAssertionData
}

// Credential is the id of the passkey that it claims to be of.
func (a *Answer) Credential() []byte { return a.parsed.RawID }

// Read reads an assertion in the JSON form of PublicKeyCredential.toJSON.
func (c *Ceremonies) Read(answer []byte) (*Answer, error) {
	if len(answer) > c.conf.MaxAnswer {
		return nil, &Refusal{"the passkey's answer is too long"}
	}
	p, err := wa.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return nil, refuse(err)
	}
	if len(p.RawID) > c.conf.MaxID {
		return nil, &Refusal{"the passkey's id is too long"}
	}
	return &Answer{p}, nil
}

// Used tells what an answer that holds says of its passkey.
type Used struct {
	Count    uint32
	BackedUp bool
	// Back says that the counter did not go on. There may be a copy of the passkey: do not let it in.
	Back bool
}

// Verify verifies that an answer is to this ceremony and of this passkey of this owner: origin, relying party, challenge, presence
// and verification of the user, and the signature.
func (o *Open) Verify(a *Answer, owner Owner, have Credential) (Used, error) {
	if err := o.origin(a.parsed.Response.CollectedClientData); err != nil {
		return Used{}, err
	}
	u := newUser(owner, []Credential{have})
	var cred *webauthn.Credential
	var err error
	if o.o.kind == SignIn {
		cred, err = o.c.lib.ValidateDiscoverableLogin(func(_, handle []byte) (webauthn.User, error) {
			if !bytes.Equal(handle, u.WebAuthnID()) {
				return nil, errors.New("another's")
			}
			return u, nil
		}, o.o.data, a.parsed)
	} else {
		data := o.o.data
		if !slices.ContainsFunc(data.AllowedCredentialIDs, func(id []byte) bool { return bytes.Equal(id, have.ID) }) {
			return Used{}, &Refusal{"the ceremony did not ask for this passkey"}
		}
		data.AllowedCredentialIDs = [][]byte{have.ID} // the library wants all of them at hand
		cred, err = o.c.lib.ValidateLogin(u, data, a.parsed)
	}
	if err != nil {
		return Used{}, refuse(err)
	}
	return Used{Count: a.parsed.Response.AuthenticatorData.Counter, BackedUp: cred.Flags.BackupState, Back: cred.Authenticator.CloneWarning}, nil
}

// origin holds an answer's origin against the list letter by letter; the library is more generous.
func (o *Open) origin(d wa.CollectedClientData) error {
	if !slices.Contains(o.c.conf.Origins, d.Origin) {
		return &Refusal{"the origin is not one of the relay's"}
	}
	if d.CrossOrigin || d.TopOrigin != "" {
		return &Refusal{"the page stood in another's frame"}
	}
	return nil
}

// fits refuses RSA keys whose verification costs the relay more than those of authenticators do.
func fits(cose []byte) error {
	k, err := webauthncose.ParsePublicKey(cose)
	if err != nil {
		return &Refusal{"the passkey's key cannot be read"}
	}
	if r, ok := k.(webauthncose.RSAPublicKeyData); ok {
		if n := new(big.Int).SetBytes(r.Modulus).BitLen(); n < minRSA || n > maxRSA || new(big.Int).SetBytes(r.Exponent).Cmp(big.NewInt(65537)) != 0 {
			return &Refusal{fmt.Sprintf("an RSA key of a passkey must have %d to %d bits and the exponent 65537", minRSA, maxRSA)}
		}
	}
	return nil
}

// Register verifies the answer to a ceremony that makes a passkey.
func (o *Open) Register(answer []byte, owner Owner) (Credential, error) {
	if len(answer) > o.c.conf.MaxAnswer {
		return Credential{}, &Refusal{"the passkey's answer is too long"}
	}
	p, err := wa.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return Credential{}, refuse(err)
	}
	if err := o.origin(p.Response.CollectedClientData); err != nil {
		return Credential{}, err
	}
	// No attestation is asked for. What a browser then sends is none at all, or a signature by the new key itself.
	at := p.Response.AttestationObject
	if _, chain := at.AttStatement["x5c"]; at.Format != "none" && at.Format != "packed" || chain {
		return Credential{}, &Refusal{"an attestation was sent that was not asked for"}
	}
	c, err := o.c.lib.CreateCredential(newUser(owner, nil), o.o.data, p)
	if err != nil {
		return Credential{}, refuse(err)
	}
	if err := fits(c.PublicKey); err != nil {
		return Credential{}, err
	}
	if len(c.ID) > o.c.conf.MaxID || !bytes.Equal(c.ID, p.RawID) {
		return Credential{}, &Refusal{"the passkey's id is not usable"}
	}
	out := Credential{ID: c.ID, Key: c.PublicKey, Count: c.Authenticator.SignCount, Eligible: c.Flags.BackupEligible, BackedUp: c.Flags.BackupState}
	for _, t := range c.Transport {
		if known := []wa.AuthenticatorTransport{wa.USB, wa.NFC, wa.BLE, wa.SmartCard, wa.Hybrid, wa.Internal}; slices.Contains(known, t) && !slices.Contains(out.Transports, string(t)) {
			out.Transports = append(out.Transports, string(t))
		}
	}
	return out, nil
}
