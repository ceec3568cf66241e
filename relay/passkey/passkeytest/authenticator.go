package passkeytest

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"testing"
)

// Algorithms of COSE.
const (
	ES256 = -7
	EdDSA = -8
	RS256 = -257
	ES384 = -35
)

// Flags of authenticator data.
const (
	UP, UV, BE, BS, AT = 0x01, 0x04, 0x08, 0x10, 0x40
)

// Key is a passkey that the authenticator holds.
type Key struct {
	ID     []byte
	Handle []byte
	Count  uint32
	signer crypto.Signer
	alg    int
}

// Wrong is what an answer does otherwise than a good one; the zero value is good.
type Wrong struct {
	Origin      string // in place of the real one
	RP          string
	Challenge   string // base64url
	Type        string
	Flags       byte   // taken away
	ID          []byte // of the credential
	Handle      []byte
	Signature   bool // one bit of it changed
	Algorithm   int  // whatever is offered
	CrossOrigin bool
	Count       uint32 // set before it counts on; with StandStill it stays
	StandStill  bool
	Format      string // of the attestation
	Data        func(authData []byte) []byte
}

// Authenticator makes keys and signs. Origin is where its browser is.
type Authenticator struct {
	Origin string
	Flags  byte // beside UP and UV
	Keys   []*Key
	Bits   int // of RSA keys; 0: 2048
}

// New gives one of a browser on a page.
func New(origin string) *Authenticator { return &Authenticator{Origin: origin, Flags: BE | BS} }

var b64 = base64.RawURLEncoding

func must[T any](t testing.TB) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// member reads a member of options, by its path.
func member(t testing.TB, o any, path ...string) any {
	t.Helper()
	for _, p := range path {
		m, ok := o.(map[string]any)
		if !ok || m[p] == nil {
			t.Fatalf("options without %v", path)
		}
		o = m[p]
	}
	return o
}

func options(t testing.TB, o any) map[string]any {
	t.Helper()
	if m, ok := o.(map[string]any); ok {
		return m
	}
	var m map[string]any
	if err := json.Unmarshal(o.(json.RawMessage), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func (a *Authenticator) clientData(t testing.TB, kind, challenge string, w Wrong) []byte {
	d := map[string]any{"type": kind, "challenge": challenge, "origin": a.Origin, "crossOrigin": w.CrossOrigin}
	for name, v := range map[string]string{"type": w.Type, "challenge": w.Challenge, "origin": w.Origin} {
		if v != "" {
			d[name] = v
		}
	}
	return must[[]byte](t)(json.Marshal(d))
}

func (a *Authenticator) authData(rp string, k *Key, flags byte, w Wrong) []byte {
	if w.RP != "" {
		rp = w.RP
	}
	hash := sha256.Sum256([]byte(rp))
	out := append(hash[:], (flags|a.Flags|UP|UV)&^w.Flags)
	return binary.BigEndian.AppendUint32(out, k.Count)
}

// Create answers creation options: the JSON form of a new credential.
func (a *Authenticator) Create(t testing.TB, opts any, w Wrong) map[string]any {
	t.Helper()
	o := options(t, opts)
	alg := w.Algorithm
	if alg == 0 {
		alg = int(member(t, o["pubKeyCredParams"].([]any)[0], "alg").(float64))
	}
	k := &Key{ID: random(32), Handle: must[[]byte](t)(b64.DecodeString(member(t, o, "user", "id").(string))), alg: alg, Count: w.Count}
	if w.ID != nil {
		k.ID = w.ID
	}
	var cose []byte
	switch alg {
	case ES256, ES384:
		curve, crv, size := elliptic.P256(), byte(1), 32
		if alg == ES384 {
			curve, crv, size = elliptic.P384(), 2, 48
		}
		priv := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(curve, rand.Reader))
		point := must[[]byte](t)(priv.PublicKey.Bytes()) // 4, x, y
		cose = cborMap(cborInt(1), cborInt(2), cborInt(3), cborInt(alg), cborInt(-1), cborInt(int(crv)), cborInt(-2), cborBytes(point[1:1+size]), cborInt(-3), cborBytes(point[1+size:]))
		k.signer = priv
	case EdDSA:
		pub, priv, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cose = cborMap(cborInt(1), cborInt(1), cborInt(3), cborInt(alg), cborInt(-1), cborInt(6), cborInt(-2), cborBytes(pub))
		k.signer = priv
	case RS256:
		priv := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, cmp.Or(a.Bits, 2048)))
		cose = cborMap(cborInt(1), cborInt(3), cborInt(3), cborInt(alg), cborInt(-1), cborBytes(priv.N.Bytes()), cborInt(-2), cborBytes([]byte{1, 0, 1}))
		k.signer = priv
	default:
		t.Fatalf("no algorithm %d", alg)
	}
	data := a.authData(member(t, o, "rp", "id").(string), k, AT, w)
	data = append(data, make([]byte, 16)...) // no model is told
	data = binary.BigEndian.AppendUint16(data, uint16(len(k.ID)))
	data = append(append(data, k.ID...), cose...)
	if w.Data != nil {
		data = w.Data(data)
	}
	format := w.Format
	if format == "" {
		format = "none"
	}
	att := cborMap(cborText("fmt"), cborText(format), cborText("attStmt"), cborMap(), cborText("authData"), cborBytes(data))
	a.Keys = append(a.Keys, k)
	return map[string]any{"id": b64.EncodeToString(k.ID), "rawId": b64.EncodeToString(k.ID), "type": "public-key", "authenticatorAttachment": "platform",
		"clientExtensionResults": map[string]any{"credProps": map[string]any{"rk": true}}, "response": map[string]any{
			"clientDataJSON":    b64.EncodeToString(a.clientData(t, "webauthn.create", o["challenge"].(string), w)),
			"attestationObject": b64.EncodeToString(att), "transports": []any{"internal", "hybrid"}}}
}

// Get answers request options by the newest key: the JSON form of an assertion.
func (a *Authenticator) Get(t testing.TB, opts any, w Wrong) map[string]any {
	t.Helper()
	return a.GetBy(t, a.Keys[len(a.Keys)-1], opts, w)
}

// GetBy answers by a key of choice.
func (a *Authenticator) GetBy(t testing.TB, k *Key, opts any, w Wrong) map[string]any {
	t.Helper()
	o := options(t, opts)
	if w.Count != 0 {
		k.Count = w.Count
	} else if !w.StandStill {
		k.Count++
	}
	data := a.authData(o["rpId"].(string), k, 0, w)
	if w.Data != nil {
		data = w.Data(data)
	}
	cd := a.clientData(t, "webauthn.get", o["challenge"].(string), w)
	sum := sha256.Sum256(cd)
	sig := k.sign(t, append(append([]byte{}, data...), sum[:]...))
	if w.Signature {
		sig[len(sig)-1] ^= 1
	}
	id, handle := k.ID, k.Handle
	if w.ID != nil {
		id = w.ID
	}
	if w.Handle != nil {
		handle = w.Handle
	}
	return map[string]any{"id": b64.EncodeToString(id), "rawId": b64.EncodeToString(id), "type": "public-key", "clientExtensionResults": map[string]any{}, "response": map[string]any{
		"clientDataJSON": b64.EncodeToString(cd), "authenticatorData": b64.EncodeToString(data), "signature": b64.EncodeToString(sig), "userHandle": b64.EncodeToString(handle)}}
}

func (k *Key) sign(t testing.TB, message []byte) []byte {
	t.Helper()
	if k.alg == EdDSA {
		return must[[]byte](t)(k.signer.Sign(rand.Reader, message, crypto.Hash(0)))
	}
	sum := sha256.Sum256(message)
	return must[[]byte](t)(k.signer.Sign(rand.Reader, sum[:], crypto.SHA256))
}

// The little of CBOR (RFC 8949) that is needed.
func cborHead(major byte, n uint64) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	}
	panic(fmt.Sprintf("passkeytest: %d is too long", n))
}

func cborInt(n int) []byte {
	if n < 0 {
		return cborHead(1, uint64(-1-n))
	}
	return cborHead(0, uint64(n))
}

func cborBytes(b []byte) []byte { return append(cborHead(2, uint64(len(b))), b...) }
func cborText(s string) []byte  { return append(cborHead(3, uint64(len(s))), s...) }

// cborMap takes keys and values in turn, in the order that they are to have.
func cborMap(kv ...[]byte) []byte {
	out := cborHead(5, uint64(len(kv)/2))
	for _, b := range kv {
		out = append(out, b...)
	}
	return out
}
