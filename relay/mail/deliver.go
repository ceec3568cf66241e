package mail

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// Step is a part of a delivery.
type Step string

// The steps, in their order.
const (
	Resolve   Step = "name"
	Connect   Step = "connection"
	Greet     Step = "greeting"
	Secure    Step = "tls"
	SignIn    Step = "sign-in"
	Sender    Step = "sender"
	Recipient Step = "recipient"
	Content   Step = "content"
	Inside    Step = "inside the relay" // none of the server's: the relay's own code failed
)

// Fault is why a delivery failed, and at which step.
type Fault struct {
	Step  Step
	Code  int  // the server's; 0: it said nothing
	Final bool // it must not be tried again
	Cause error
}

// Error tells the step and the server's number. What the server said may repeat an address: that is in Cause alone.
func (f *Fault) Error() string {
	if f.Code != 0 {
		return fmt.Sprintf("the mail server refused at the step %s (%d)", f.Step, f.Code)
	}
	return fmt.Sprintf("the step %s failed", f.Step)
}

func (f *Fault) Unwrap() error { return f.Cause }

// errNoTLS is the cause when a server offers no STARTTLS: it could be somebody on the way who took the offer out.
var errNoTLS = errors.New("the server offers no STARTTLS")

// Hint says what an operator can do.
func (f *Fault) Hint() string {
	switch f.Step {
	case Resolve:
		return "check the host of mail.server, and whether this machine can resolve names"
	case Connect:
		return "check the port of mail.server (587 for starttls, 465 for implicit) and whether a firewall lets this machine out to it"
	case Greet:
		return "the server takes no mail from here now: is it an SMTP server, is mail.tls right for its port (465 wants implicit), does it know this machine's address?"
	case Secure:
		if errors.Is(f.Cause, errNoTLS) {
			return "set mail.tls: implicit and the port for it, or have the server offer STARTTLS; nothing is sent in clear over a network"
		}
		return "the server's certificate must be good for the host of mail.server; name the authority that signed it in mail.ca_file; TLS 1.2 is the least"
	case SignIn:
		return "check mail.user and mail.password_file, and whether the server takes PLAIN or LOGIN from this user"
	case Sender:
		return "the server must take mail.from from this user; ask who runs it"
	case Inside:
		return "the relay's own code failed: report what its log says, please"
	case Recipient:
		return "the server does not take this recipient: check the address, and whether the server relays to other domains for this user"
	}
	return "the server took the recipient and not the message: ask who runs it"
}

// maxAnswers bounds what is read of a server in one delivery.
const maxAnswers = 256 << 10

// bounded is a conn of which no more than so much is read.
type bounded struct {
	net.Conn
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("the server says too much")
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// deliver hands a message to the server, once. done is told of each step that went well. The error is a *Fault.
func (c Config) deliver(ctx context.Context, to string, m Message, done func(Step)) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	raw, err := c.compose(to, m)
	if err != nil {
		return &Fault{Step: Content, Final: true, Cause: err}
	}
	host, port, _ := net.SplitHostPort(c.Server)
	conn, fault := c.connect(ctx, host, port, done)
	if fault != nil {
		return fault
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends whatever waits for the server
	defer stop()

	conf := &tls.Config{ServerName: host, RootCAs: c.Roots, MinVersion: tls.VersionTLS12}
	var line net.Conn = &bounded{conn, maxAnswers}
	if c.TLS == Implicit {
		t := tls.Client(line, conf)
		if err := t.HandshakeContext(ctx); err != nil {
			return faultAt(Secure, err)
		}
		done(Secure)
		line = t
	}
	s, err := smtp.NewClient(line, host)
	if err == nil {
		s.SkipSMTPUTF8(true)
		err = s.Hello(c.hello())
	}
	if err != nil {
		return faultAt(Greet, err)
	}
	done(Greet)
	if c.TLS == StartTLS {
		if ok, _ := s.Extension("STARTTLS"); !ok {
			return faultAt(Secure, errNoTLS)
		}
		if err := s.StartTLS(conf); err != nil {
			return faultAt(Secure, err)
		}
		done(Secure)
	}
	if state, ok := s.TLSConnectionState(); c.TLS != Clear && (!ok || !state.HandshakeComplete) { // whatever the library did: nothing goes in clear
		return faultAt(Secure, errNoTLS)
	}
	if c.User != "" {
		if err := c.signIn(s, host); err != nil {
			return faultAt(SignIn, err)
		}
		done(SignIn)
	}
	if err := s.Mail("<" + c.From + ">"); err != nil {
		return faultAt(Sender, err)
	}
	done(Sender)
	if err := s.Rcpt("<" + to + ">"); err != nil {
		return faultAt(Recipient, err)
	}
	done(Recipient)
	w, err := s.Data()
	if err == nil {
		_, err = w.Write(raw)
		err = cmp.Or(w.Close(), err) // its end is what the server says yes or no to
	}
	if err != nil {
		return faultAt(Content, err)
	}
	done(Content)
	_ = s.Quit() // the server has the message
	return nil
}

// connect finds the server and dials it.
func (c Config) connect(ctx context.Context, host, port string, done func(Step)) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort(host, port))
	if name := (*net.DNSError)(nil); errors.As(err, &name) {
		return nil, faultAt(Resolve, err)
	}
	done(Resolve)
	if err != nil {
		return nil, faultAt(Connect, err)
	}
	done(Connect)
	return conn, nil
}

// hello is the name that the relay gives itself: the one that people know, no inner one of this machine.
func (c Config) hello() string {
	u, err := url.Parse(c.Link)
	if err != nil || u.Hostname() == "" {
		return "localhost"
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil {
		if ip.To4() == nil {
			return "[IPv6:" + ip.String() + "]"
		}
		return "[" + ip.String() + "]"
	}
	return u.Hostname()
}

func (c Config) signIn(s *smtp.Client, host string) error {
	password, err := c.Password()
	if err != nil {
		return err
	}
	_, offered := s.Extension("AUTH")
	mechanisms := strings.Fields(strings.ToUpper(offered))
	switch clear := c.TLS == Clear; { // to this machine
	case slices.Contains(mechanisms, "PLAIN"):
		return s.Auth(smtp.PlainAuth("", c.User, password.ExposeString(), host, clear))
	case slices.Contains(mechanisms, "LOGIN"):
		return s.Auth(smtp.LoginAuth(c.User, password.ExposeString(), host, clear))
	}
	return errors.New("the server offers neither PLAIN nor LOGIN")
}

// faultAt judges an error. What the server refuses for good about a message is final; what is about the server itself may be put
// right while the message waits.
func faultAt(s Step, err error) *Fault {
	f := &Fault{Step: s, Cause: err}
	if said := (*textproto.Error)(nil); errors.As(err, &said) {
		f.Code = said.Code
	}
	f.Final = f.Code >= 500 && f.Code <= 599 && slices.Contains([]Step{Sender, Recipient, Content}, s)
	return f
}

// compose writes the message as it goes over the line.
func (c Config) compose(to string, m Message) ([]byte, error) {
	to, err := Address(to)
	if err != nil {
		return nil, errors.New("the recipient " + err.Error())
	}
	if strings.ContainsAny(m.Subject, "\r\n") {
		return nil, errors.New("the subject has more than a line")
	}
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	if err := msg.FromFormat("Fairlead", c.From); err != nil {
		return nil, err
	}
	if err := msg.To(to); err != nil {
		return nil, err
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	_, domain, _ := strings.Cut(c.From, "@")
	msg.SetMessageIDWithValue(hex.EncodeToString(id[:]) + "@" + domain)
	msg.SetDateWithValue(time.Now())
	msg.Subject(m.Subject)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no robot answers
	msg.SetBodyString(gomail.TypeTextPlain, m.Text.ExposeString())
	var b bytes.Buffer
	if _, err := msg.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Try sends the test message and tells of each step that went well. The error is a *Fault, or about the configuration.
func Try(ctx context.Context, c Config, to string, done func(Step)) error {
	if err := c.check(); err != nil {
		return err
	}
	return c.deliver(ctx, to, TestMessage(), done)
}
