package httpapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

// DialFunc opens a connection; tcp.Dialer.DialContext is one.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// Header is a header that the site adds to every request to its target.
type Header struct {
	Name  string
	Value secret.Bytes
}

// Config describes one http profile. Which methods and paths the site allows is the policy's question, asked before Do.
type Config struct {
	Name    string // of the profile
	BaseURL string // http or https, host, port, path; no user, query or fragment

	Dial DialFunc // to the host of BaseURL; required

	CAs        *x509.CertPool    // nil means the system's
	ServerName string            // to verify instead of the host of BaseURL; "" means that host
	ClientCert []tls.Certificate // shown to a target that asks
	AnyName    bool              // verify the target's chain but not its name (tls: verify-ca)
	Insecure   bool              // do not verify the target's certificate. Logged at New; see API.Insecure

	ForwardAuthorization bool     // pass the caller's Authorization on; else it is dropped
	Headers              []Header // set on each request, in place of the caller's
	Username             string   // basic authentication, with Password
	Password             secret.Bytes

	// Redirects follows up to 5 redirects. Decide judges each hop that stays at BaseURL's origin; ElsewhereDial opens one that
	// leaves it, and so decides it: nil refuses to leave.
	Redirects     bool
	Decide        func(policy.Operation) policy.Decision
	ElsewhereDial DialFunc

	MaxBodyBytes   int64         // of a request; 0 means no limit. A Decision can only lower it
	MaxAnswerBytes int64         // of an answer's body; as above
	HeaderTimeout  time.Duration // from the end of the request to the head of the answer; 0 means 60 s
	MaxConns       int           // at a time; 0 means 32
}

const (
	maxHops        = 5
	maxHeaderBytes = 256 << 10
	userAgent      = "fairlead-agent"
)

// methods that can be passed on. CONNECT and TRACE never are (A22).
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// API is the Connector of one http profile.
type API struct {
	cfg       Config
	log       *slog.Logger
	base      *url.URL
	transport *http.Transport // to the base's origin only
	elsewhere *http.Transport // nil unless redirects may leave it
	ctx       context.Context // ends at Close
	stop      context.CancelFunc
}

var _ connector.Connector = (*API)(nil)

// New checks the configuration. It dials nothing yet.
func New(cfg Config, log *slog.Logger) (*API, error) {
	bad := func(what string) (*API, error) { return nil, fmt.Errorf("http profile %s: %s", cfg.Name, what) }
	base, err := url.Parse(cfg.BaseURL)
	switch {
	case err != nil:
		return bad("base_url is not a URL")
	case base.Scheme != "http" && base.Scheme != "https":
		return bad("base_url must begin with http:// or https://")
	case base.Hostname() == "" || base.User != nil || base.RawQuery != "" || base.ForceQuery || base.Fragment != "" || base.Opaque != "":
		return bad("base_url wants a host, and takes no user, query or fragment")
	case strings.HasSuffix(base.Host, ":"):
		return bad("base_url has an empty port")
	case cfg.Dial == nil:
		return bad("no dialer")
	case cfg.Redirects && cfg.Decide == nil:
		return bad("redirects are to be followed, but nothing decides them")
	}
	for _, h := range cfg.Headers {
		if !validName(h.Name) || !validValue(h.Value.Expose()) || dropped(h.Name) {
			return bad(fmt.Sprintf("header %q cannot be set", h.Name))
		}
	}
	base.Path, base.RawPath = strings.TrimSuffix(base.Path, "/"), strings.TrimSuffix(base.RawPath, "/")
	if cfg.HeaderTimeout <= 0 {
		cfg.HeaderTimeout = time.Minute
	}
	if cfg.MaxConns <= 0 {
		cfg.MaxConns = 32
	}
	a := &API{cfg: cfg, log: log.With("profile", cfg.Name), base: base}
	a.ctx, a.stop = context.WithCancel(context.Background())
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: cfg.CAs, ServerName: cfg.ServerName, Certificates: cfg.ClientCert, InsecureSkipVerify: cfg.Insecure, //nolint:gosec // by the site's own explicit word
	}
	if cfg.AnyName && !cfg.Insecure {
		// crypto/tls checks chain and name together or neither, so the chain is checked here.
		conf.InsecureSkipVerify = true
		conf.VerifyConnection = func(cs tls.ConnectionState) error { return verifyChain(cs, cfg.CAs) }
	}
	a.transport = newTransport(cfg, cfg.Dial, conf)
	if cfg.Redirects && cfg.ElsewhereDial != nil {
		// Neither the insecure mode nor the client certificate was meant for other hosts.
		a.elsewhere = newTransport(cfg, cfg.ElsewhereDial, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: cfg.CAs})
		a.elsewhere.DisableKeepAlives = true
	}
	if cfg.Insecure {
		a.log.Warn("the target's certificate is not verified", "base_url", base.Redacted())
	}
	return a, nil
}

// verifyChain checks that the target's certificate was issued by one of the CAs and is valid now, whatever its name.
func verifyChain(cs tls.ConnectionState, roots *x509.CertPool) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("the target shows no certificate")
	}
	inter := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		inter.AddCert(c)
	}
	_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	return err
}

func newTransport(cfg Config, dial DialFunc, conf *tls.Config) *http.Transport {
	p := new(http.Protocols)
	p.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  nil, // never the environment's (A23)
		DialContext:            dial,
		TLSClientConfig:        conf,
		Protocols:              p,
		DisableCompression:     true, // what the target encodes goes on as it is
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  cfg.HeaderTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxConnsPerHost:        cfg.MaxConns,
		MaxIdleConnsPerHost:    8,
		IdleConnTimeout:        time.Minute,
		ReadBufferSize:         16 << 10,
		WriteBufferSize:        16 << 10,
	}
}

// Insecure reports whether the target's certificate goes unverified, so that every event of this profile can say so.
func (a *API) Insecure() bool { return a.cfg.Insecure && a.base.Scheme == "https" }

// Close drops idle connections and ends the requests that run.
func (a *API) Close() error {
	a.stop()
	a.transport.CloseIdleConnections()
	if a.elsewhere != nil {
		a.elsewhere.CloseIdleConnections()
	}
	return nil
}

var errClosed = &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent, Message: "the agent ended the request: it stops, or the profile changed"}

// fault makes a failed round trip into an error that may be shown.
func fault(err error) error {
	var own *protocol.Error
	if errors.As(err, &own) || errors.Is(err, context.Canceled) {
		return err
	}
	e := &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: "the target broke off or answered with something that is not HTTP", Cause: err}
	var (
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
		verify    *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		timeout   net.Error
	)
	const check = "the certificate of the target cannot be verified"
	switch {
	case errors.As(err, &authority):
		e.Message, e.Detail, e.Hint = check, "unknown authority", "the site can name the right CA in the profile's ca_file"
	case errors.As(err, &host):
		e.Message, e.Detail, e.Hint = check, "name mismatch", "the certificate must hold the host of base_url as a subject alternative name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		e.Message, e.Detail = check, "expired or not yet valid"
	case errors.As(err, &invalid), errors.As(err, &verify):
		e.Message = check
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		e.Message = "the target does not speak TLS"
	case errors.As(err, &alert), strings.Contains(err.Error(), "tls: "):
		e.Message = "the TLS handshake with the target failed"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		e.Code, e.Message = protocol.CodeTimeout, "the target did not answer in time"
	}
	return e
}

func denied(message string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginAgent, Message: message}
}

// hop is one request to be sent.
type hop struct {
	method string
	url    *url.URL
	header http.Header
	home   bool // at the base's origin
}

// first builds the request that the caller asked for.
func (a *API) first(r *protocol.Request) (*hop, error) {
	if !slices.Contains(methods, r.Method) {
		return nil, denied("this method is never passed on")
	}
	target, _, err := policy.HTTPPath(r.Target)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginAgent, Message: err.Error(), Hint: "send the path in its plain, normalised form"}
	}
	if upgrades(r.Header) {
		return nil, denied("an http profile does not change protocols")
	}
	path, query, asked := strings.Cut(target, "?")
	u := *a.base
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeInvalid, "the path has a malformed escape")
	}
	u.RawPath, u.Path = a.base.EscapedPath()+path, a.base.Path+plain
	u.RawQuery, u.ForceQuery = query, asked && query == ""
	if u.EscapedPath() != u.RawPath {
		return nil, protocol.Errorf(protocol.CodeInvalid, "the path cannot be passed on as it is")
	}
	h := &hop{method: r.Method, url: &u, header: a.forward(r.Header), home: true}
	a.authenticate(h.header)
	return h, nil
}

// authenticate sets what the site's own file adds.
func (a *API) authenticate(h http.Header) {
	if a.cfg.Username != "" || !a.cfg.Password.IsZero() {
		r := http.Request{Header: h}
		r.SetBasicAuth(a.cfg.Username, a.cfg.Password.ExposeString())
	}
	for _, add := range a.cfg.Headers {
		h.Set(add.Name, add.Value.ExposeString())
	}
}
