package mailtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// The one user who may send, where signing in is wanted.
const (
	User     = "relay@example.com"
	Password = "canary-smtp-password"
)

// Received is a message as the server got it.
type Received struct {
	From   string
	To     []string
	User   string // who signed in
	TLS    bool
	Header mail.Header
	Raw    string
	Text   string // decoded
}

// Faults are what the server does wrong. Set them before the message comes.
type Faults struct {
	NoTLS     bool  // it offers no STARTTLS
	Recipient error // what it says to RCPT; a *smtp.SMTPError has its own code
	Times     int   // how often; 0: always
	Content   error // what it says to the message
	Hang      bool  // it never answers RCPT
}

// Server is an SMTP server.
type Server struct {
	Addr  string
	Roots *x509.CertPool
	// Patience is how long Next waits; in a bubble it costs no time.
	Patience time.Duration
	PEM      []byte // of its certificate, which signs itself

	mu     sync.Mutex // guards the fields below
	faults Faults
	tries  int
	got    []Received
	came   chan struct{} // one for each message
	over   chan struct{}
}

// Refusal makes what the server says, with its number.
func Refusal(code int, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 1, 1}, Message: text}
}

// Start serves on loopback until the test ends. implicit: TLS from the first byte. auth: who does not sign in may not send.
func Start(t testing.TB, implicit, auth bool, f Faults) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return Serve(t, ln, implicit, auth, f)
}

// Serve is Start on a listener.
func Serve(t testing.TB, ln net.Listener, implicit, auth bool, f Faults) *Server {
	t.Helper()
	cert, pemText := certificate(t)
	s := &Server{Patience: 20 * time.Second, Addr: ln.Addr().String(), Roots: x509.NewCertPool(), PEM: pemText, faults: f, came: make(chan struct{}, 1000), over: make(chan struct{})}
	s.Roots.AppendCertsFromPEM(pemText)
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		one := &session{server: s, conn: c, wants: auth}
		if !auth {
			return struct{ smtp.Session }{one}, nil // offers no sign-in
		}
		return one, nil
	}))
	srv.Domain, srv.ErrorLog, srv.ReadTimeout, srv.WriteTimeout = "mail.example.com", log.New(io.Discard, "", 0), time.Hour, time.Hour
	srv.AllowInsecureAuth = f.NoTLS
	conf := &tls.Config{Certificates: []tls.Certificate{cert}}
	switch {
	case implicit:
		ln = tls.NewListener(ln, conf)
	case !f.NoTLS:
		srv.TLSConfig = conf
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	t.Cleanup(func() {
		close(s.over)
		_ = srv.Close()
		_ = ln.Close()
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = srv.Shutdown(ctx) // waits for the conns
	})
	return s
}

// Set changes what the server does wrong.
func (s *Server) Set(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults, s.tries = f, 0
}

// Tries is how often a recipient was named since the last Set.
func (s *Server) Tries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tries
}

// Next waits for a message.
func (s *Server) Next(t testing.TB) Received {
	t.Helper()
	select {
	case <-s.came:
	case <-time.After(s.Patience):
		t.Fatal("no e-mail came")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.got[0]
	s.got = s.got[1:]
	return m
}

// None fails when there is a message that nobody took.
func (s *Server) None(t testing.TB) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.got) > 0 {
		t.Fatalf("an e-mail came: %s", s.got[0].Raw)
	}
}

type session struct {
	server *Server
	conn   *smtp.Conn
	wants  bool
	user   string
	from   string
	to     []string
}

func (s *session) Reset()                   { s.from, s.to = "", nil }
func (s *session) Logout() error            { return nil }
func (s *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if user != User || password != Password {
			return smtp.ErrAuthFailed
		}
		s.user = user
		return nil
	}), nil
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	if s.wants && s.user == "" {
		return smtp.ErrAuthRequired
	}
	s.from = from
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	s.server.tries++
	f, n := s.server.faults, s.server.tries
	s.server.mu.Unlock()
	if f.Hang {
		<-s.server.over
		return errors.New("over")
	}
	if f.Recipient != nil && (f.Times == 0 || n <= f.Times) {
		return f.Recipient
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if err := s.server.faults.Content; err != nil {
		return err
	}
	m, err := mail.ReadMessage(strings.NewReader(string(raw)))
	if err != nil {
		return err
	}
	var body io.Reader = m.Body
	if m.Header.Get("Content-Transfer-Encoding") == "quoted-printable" {
		body = quotedprintable.NewReader(body)
	}
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	_, secure := s.conn.TLSConnectionState()
	s.server.got = append(s.server.got, Received{From: s.from, To: s.to, User: s.user, TLS: secure, Header: m.Header, Raw: string(raw), Text: strings.ReplaceAll(string(text), "\r\n", "\n")})
	s.server.came <- struct{}{}
	return nil
}

func certificate(t testing.TB) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
