package mail

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// How the server is spoken to.
const (
	StartTLS = "starttls" // in clear until STARTTLS, which it must offer
	Implicit = "implicit" // TLS from the first byte
	Clear    = "none"     // without TLS: of a server on this machine only
)

// Config says through which server e-mail goes, and how much.
type Config struct {
	Server string // host:port
	From   string
	TLS    string
	User   string // "": without signing in
	// Password is asked for at each message, so that a new one needs no restart.
	Password func() (secret.Bytes, error)
	Roots    *x509.CertPool // nil: the system's
	// Link is where people reach the relay, https://host or https://host:port.
	Link string

	PerWorkspace int // codes in an hour, and what one actor does to others' accounts of which these are told, of a kind
	PerRecipient int // codes of one workspace, in an hour, and notices of a kind

	Queue   int           // messages that wait at most, …
	Share   int           // … of one workspace, …
	Least   int           // … and that a workspace has room for even when there is no more
	Workers int           // messages under way at a time
	Timeout time.Duration // of one try
	Retry   time.Duration // until the second try; each wait is twice the one before …
	MaxWait time.Duration // … up to this
	GiveUp  time.Duration // from the first try to the last
	Kept    int           // people of whom it is known what became of their message

	Logger *slog.Logger
	// Dial replaces the dialer, for tests.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// DefaultConfig has everything but the server, the sender and the link.
func DefaultConfig() Config {
	return Config{TLS: StartTLS, PerWorkspace: 100, PerRecipient: 6, Queue: 1000, Share: 200, Least: 10, Workers: 2, Timeout: time.Minute, Retry: time.Minute, MaxWait: 30 * time.Minute,
		GiveUp: 4 * time.Hour, Kept: 10_000, Logger: slog.New(slog.DiscardHandler)}
}

// MaxLimit is the highest number of messages in an hour.
const MaxLimit = 10_000

func (c Config) check() error {
	if c.PerWorkspace < 1 || c.PerRecipient < 1 || c.Queue < 1 || c.Share < 1 || c.Least < 0 || c.Workers < 1 || c.Timeout <= 0 || c.Retry <= 0 || c.MaxWait < c.Retry || c.GiveUp <= 0 || c.Kept < 1 || c.Logger == nil {
		return errors.New("e-mail: all limits and a logger must be set")
	}
	if err := CheckServer(c.Server, c.TLS); err != nil {
		return fmt.Errorf("e-mail: %w", err)
	}
	if _, err := Address(c.From); err != nil {
		return fmt.Errorf("e-mail: the sender %w", err)
	}
	if err := CheckLink(c.Link); err != nil {
		return fmt.Errorf("e-mail: %w", err)
	}
	if c.User != "" && c.Password == nil {
		return errors.New("e-mail: a user without a password")
	}
	return nil
}

// CheckServer refuses a server that cannot be, and one in clear that is not on this machine.
func CheckServer(server, mode string) error {
	host, port, err := net.SplitHostPort(server)
	if err != nil || host == "" || port == "" || strings.ContainsAny(server, " \r\n\t") {
		return errors.New("the server is not a host and port")
	}
	switch mode {
	case StartTLS, Implicit:
	case Clear:
		if a, err := netip.ParseAddr(host); err != nil || !a.Unmap().IsLoopback() {
			return errors.New("without TLS the server must be an address of this machine, such as 127.0.0.1")
		}
	default:
		return errors.New("tls is none of starttls, implicit and none")
	}
	return nil
}

// CheckLink refuses what is no address that a path can be put behind.
func CheckLink(link string) error {
	u, err := url.Parse(link)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || strings.ContainsAny(link, " \r\n\t<>\"") {
		return errors.New("the link is not https:// and a host, without a path")
	}
	return nil
}

// Bounds of addresses (RFC 5321, 4.5.3.1).
const (
	maxAddress = 254
	maxLocal   = 64
)

// Address gives the one form of an e-mail address, the host in small letters. It takes less than the standards do: no quotes, no
// comments, no names before it and nothing but ASCII, so that no address can be more than one, or end a line.
func Address(s string) (string, error) {
	bad := errors.New("is no plain e-mail address: want one such as bert@example.com, in ASCII")
	local, host, ok := strings.Cut(s, "@")
	if !ok || len(s) > maxAddress || len(local) > maxLocal || local == "" || local[0] == '.' || local[len(local)-1] == '.' || strings.Contains(local, "..") {
		return "", bad
	}
	for i := 0; i < len(local); i++ {
		if c := local[i]; !alnum(c) && strings.IndexByte("!#$%&'*+-/=?^_`{|}~.", c) < 0 {
			return "", bad
		}
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", bad
		}
		for i := 0; i < len(label); i++ {
			if !alnum(label[i]) && label[i] != '-' {
				return "", bad
			}
		}
	}
	return local + "@" + strings.ToLower(host), nil
}

func alnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Mask is an address for the eyes of admins: its first character and its host. "" stays.
func Mask(address string) string {
	local, host, ok := strings.Cut(address, "@")
	if !ok || local == "" {
		return ""
	}
	return local[:1] + "***@" + strings.ToLower(host)
}
