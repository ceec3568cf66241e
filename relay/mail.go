package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/mail"
)

// Mail says through which SMTP server e-mail goes to people; without a server there is none.
type Mail struct {
	Server string `yaml:"server"` // host:port
	From   string `yaml:"from"`
	TLS    string `yaml:"tls"` // starttls, implicit, or none for a server on this machine
	User   string `yaml:"user"`
	// PasswordFile is read at each message; a relative path is taken from relay.yaml's folder.
	PasswordFile string `yaml:"password_file"`
	CAFile       string `yaml:"ca_file"`
	// Link is where people reach the relay: https:// and a host.
	Link string `yaml:"link"`
	// PerWorkspace and PerRecipient are e-mails in an hour, of one workspace and to one person of it.
	PerWorkspace int `yaml:"per_workspace"`
	PerRecipient int `yaml:"per_recipient"`
}

func defaultMail() Mail {
	d := mail.DefaultConfig()
	return Mail{TLS: d.TLS, PerWorkspace: d.PerWorkspace, PerRecipient: d.PerRecipient}
}

// below takes relative paths from a folder.
func (m *Mail) below(dir string) {
	for _, f := range []*string{&m.PasswordFile, &m.CAFile} {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(dir, *f)
		}
	}
}

func (m Mail) validate(fault func(path, msg, hint string)) {
	for key, n := range map[string]int{"mail.per_workspace": m.PerWorkspace, "mail.per_recipient": m.PerRecipient} {
		if n < 1 || n > mail.MaxLimit {
			fault(key, "is out of range", fmt.Sprintf("from 1 to %d", mail.MaxLimit))
		}
	}
	if m.Server == "" {
		if m.From != "" || m.User != "" || m.PasswordFile != "" || m.CAFile != "" || m.Link != "" {
			fault("mail.server", "is not given", "such as mail.example.com:587; or leave mail out for no e-mail")
		}
		return
	}
	switch m.TLS {
	case mail.StartTLS, mail.Implicit, mail.Clear:
		if err := mail.CheckServer(m.Server, mail.StartTLS); err != nil {
			fault("mail.server", err.Error(), "such as mail.example.com:587")
		} else if err := mail.CheckServer(m.Server, m.TLS); err != nil {
			fault("mail.tls", err.Error(), "starttls or implicit for every other server: codes and the password would pass the network in clear")
		}
	default:
		fault("mail.tls", "is not a way to speak to a mail server", "starttls, implicit, or none for a server on this machine")
	}
	if _, err := mail.Address(m.From); err != nil {
		fault("mail.from", err.Error(), "the address that e-mails come from, such as fairlead@example.com")
	}
	if err := mail.CheckLink(m.Link); err != nil {
		fault("mail.link", err.Error(), "where people reach the relay in a browser, such as https://relay.example.com")
	}
	if (m.User == "") != (m.PasswordFile == "") {
		fault("mail.user", "stands without password_file, or that without user", "give both, or neither for a server that wants no sign-in")
	}
	if m.PasswordFile != "" {
		if _, err := m.password(); err != nil {
			fault("mail.password_file", err.Error(), "a file with the password alone, readable by the relay's user and nobody else")
		}
	}
	if _, err := m.roots(); err != nil {
		fault("mail.ca_file", err.Error(), "a PEM file of the authority that signed the mail server's certificate; leave it out for the system's")
	}
}

func (m Mail) password() (secret.Bytes, error) {
	return config.SecretRef{File: m.PasswordFile}.Resolve("")
}

// roots are nil for the system's.
func (m Mail) roots() (*x509.CertPool, error) {
	if m.CAFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(m.CAFile)
	if err != nil {
		return nil, errors.New("the file cannot be read")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, errors.New("the file holds no certificate")
	}
	return pool, nil
}

func (m Mail) config(log *slog.Logger) (mail.Config, error) {
	c := mail.DefaultConfig()
	c.Server, c.From, c.TLS, c.User, c.Password, c.Link, c.PerWorkspace, c.PerRecipient, c.Logger = m.Server, m.From, m.TLS, m.User, m.password, m.Link, m.PerWorkspace, m.PerRecipient, log
	var err error
	c.Roots, err = m.roots()
	return c, err
}

// newMail makes the outbox; nil where there is no e-mail.
func newMail(m Mail, log *slog.Logger) (*mail.Outbox, error) {
	if m.Server == "" {
		return nil, nil
	}
	c, err := m.config(log)
	if err != nil {
		return nil, fmt.Errorf("mail.ca_file: %w", err)
	}
	return mail.New(c)
}

// ErrNoMail says that relay.yaml names no mail server.
var ErrNoMail = errors.New("relay.yaml sends no e-mail: there is no mail.server")

// TryMail sends a test message with the settings of relay.yaml, and tells of each step that went well. The error may be a *mail.Fault.
func TryMail(ctx context.Context, c Config, to string, done func(mail.Step)) error {
	if c.Mail.Server == "" {
		return ErrNoMail
	}
	mc, err := c.Mail.config(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	return mail.Try(ctx, mc, to, done)
}

// mailCollector counts e-mail.
type mailCollector struct{ o *mail.Outbox }

var (
	mailWaiting = prometheus.NewDesc("fairlead_mail_waiting", "E-mails that wait to be sent, or are under way.", nil, nil)
	mailDone    = prometheus.NewDesc("fairlead_mail_total", "E-mails by what became of them: sent, failed (refused for good), expired (not taken in time), limited (refused before they were made), lost (at a stop).", []string{"outcome"}, nil)
	mailRetries = prometheus.NewDesc("fairlead_mail_retries_total", "Tries to send an e-mail that were not the last.", nil, nil)
)

// Describe implements prometheus.Collector.
func (mailCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{mailWaiting, mailDone, mailRetries} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c mailCollector) Collect(ch chan<- prometheus.Metric) {
	n := c.o.Counts()
	ch <- prometheus.MustNewConstMetric(mailWaiting, prometheus.GaugeValue, float64(n.Waiting))
	ch <- prometheus.MustNewConstMetric(mailRetries, prometheus.CounterValue, float64(n.Retried))
	for outcome, v := range map[string]int64{"sent": n.Sent, "failed": n.Failed, "expired": n.Expired, "limited": n.Limited, "lost": n.Undone} {
		ch <- prometheus.MustNewConstMetric(mailDone, prometheus.CounterValue, float64(v), outcome)
	}
}
