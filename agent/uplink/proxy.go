package uplink

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// Proxy is the HTTP proxy on the way out. The zero value means none.
type Proxy struct {
	URL      *url.URL // http://HOST:PORT or https://HOST:PORT
	Username string
	Password secret.Bytes
	CAs      *x509.CertPool // judge an https proxy; nil: the system's
	// FromEnvironment takes URL, user and password from HTTPS_PROXY at each dial, unless NO_PROXY names the address. The
	// environment is never asked without it.
	FromEnvironment bool

	places *places // of the way without a proxy; nil: none
}

// Bounds of a proxy's answer to CONNECT.
const (
	maxProxyHead    = 16 << 10 // all heads of an answer, interim ones included
	maxProxyInterim = 8        // answers 1xx before the one that counts
	proxyTimeout    = 20 * time.Second
)

// outError is a failure before the relay was reached: the network or a proxy said no. Another transport to the same address
// would fare no better.
type outError struct{ error }

func (e outError) Unwrap() error { return e.error }

// Dial opens a conn to addr, through the proxy when there is one (CONNECT, RFC 9110 9.3.6). Errors say who refused and what
// can be done.
func (p Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := p.dial(ctx, network, addr)
	if err != nil {
		return nil, outError{err}
	}
	return conn, nil
}

func (p Proxy) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	known := p.places
	if p.FromEnvironment {
		var err error
		if p, err = p.fromEnvironment(addr); err != nil {
			return nil, err
		}
	}
	d := net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}
	if p.URL == nil {
		conn, err := known.dial(ctx, &d, network, addr)
		if err != nil {
			return nil, fmt.Errorf("%w (is the outgoing port open in the firewall?)", err)
		}
		return conn, nil
	}
	proxy := p.URL.Host
	if p.URL.Port() == "" {
		proxy = net.JoinHostPort(p.URL.Hostname(), map[string]string{"http": "80", "https": "443"}[p.URL.Scheme])
	}
	conn, err := d.DialContext(ctx, network, proxy)
	if err != nil {
		return nil, fmt.Errorf("dial proxy %s: %w", proxy, err)
	}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	out, err := p.connect(ctx, conn, proxy, addr)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return out, nil
}

// fromEnvironment is the proxy that the environment names for addr. No error repeats a URL: it may hold a password.
func (p Proxy) fromEnvironment(addr string) (Proxy, error) {
	const where = "the environment's HTTPS_PROXY (relay.proxy.from: environment)"
	env := httpproxy.FromEnvironment()
	text := env.HTTPSProxy
	if text == "" {
		return Proxy{}, nil
	}
	// httpproxy passes over what it cannot parse and goes straight: here that is a fault.
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Proxy{}, fmt.Errorf("%s is not a URL", where)
	}
	if through, err := env.ProxyFunc()(&url.URL{Scheme: "https", Host: addr}); err == nil && through == nil {
		return Proxy{}, nil // NO_PROXY, or this host itself
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return Proxy{}, fmt.Errorf("%s wants http://HOST:PORT or https://HOST:PORT; other kinds are not supported", where)
	}
	e := Proxy{URL: &url.URL{Scheme: u.Scheme, Host: u.Host}, CAs: p.CAs, FromEnvironment: true}
	if u.User != nil {
		pw, _ := u.User.Password()
		e.Username, e.Password = u.User.Username(), secret.FromString(pw)
	}
	return e, nil
}

// connect asks for a way through. On an error the conn is left to the caller.
func (p Proxy) connect(ctx context.Context, conn net.Conn, proxy, addr string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if p.URL.Scheme == "https" {
		t := tls.Client(conn, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: p.URL.Hostname(), RootCAs: p.CAs, NextProtos: []string{"http/1.1"}})
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, explainProxyTLS(proxy, err)
		}
		conn = outer{t}
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{"User-Agent": {"fairlead-agent"}}}
	if p.Username != "" {
		cred := append([]byte(p.Username+":"), p.Password.Expose()...)
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString(cred))
		clear(cred)
	}
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("ask proxy %s to connect to %s: %w", proxy, addr, err)
	}
	limited := &io.LimitedReader{R: conn, N: maxProxyHead}
	br := bufio.NewReaderSize(limited, 4<<10)
	resp, err := readAnswer(br, req)
	if err != nil {
		return nil, explainProxyAnswer(ctx, proxy, limited.N <= 0, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, p.refused(proxy, addr, resp)
	}
	// TLS, and a WebSocket in it, begin with our word. What comes before it is no tunnel's; Content-Length says nothing here.
	if br.Buffered() > 0 {
		return nil, fmt.Errorf("proxy %s answers CONNECT with a body of its own: a sign-in page, or no proxy at all", proxy)
	}
	if !stop() {
		return nil, fmt.Errorf("proxy %s: %w", proxy, ctx.Err())
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear deadline on conn to proxy %s: %w", proxy, err)
	}
	return conn, nil
}

var errInterim = errors.New("nothing but interim answers")

// readAnswer reads the head of the answer that counts.
func readAnswer(br *bufio.Reader, req *http.Request) (*http.Response, error) {
	for range maxProxyInterim {
		resp, err := http.ReadResponse(br, req)
		if err != nil || resp.StatusCode >= 200 {
			return resp, err
		}
	}
	return nil, errInterim
}

// refused says what an answer other than 2xx means. Nothing of the answer's text is repeated but names that are known.
func (p Proxy) refused(proxy, addr string, resp *http.Response) error {
	said := fmt.Sprintf("proxy %s refused CONNECT %s: %d %s", proxy, addr, resp.StatusCode, http.StatusText(resp.StatusCode))
	switch code := resp.StatusCode; {
	case code == http.StatusProxyAuthRequired:
		return errors.New(p.unauthenticated(proxy, schemes(resp.Header.Values("Proxy-Authenticate"))))
	case code == http.StatusForbidden || code == http.StatusMethodNotAllowed:
		hint := "ask its admin to allow this destination"
		if _, port, err := net.SplitHostPort(addr); err == nil && port != "443" {
			hint += "; many proxies allow CONNECT to port 443 alone"
		}
		return fmt.Errorf("%s (%s)", said, hint)
	case code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		return fmt.Errorf("%s (the proxy itself does not reach the relay: its DNS, or a firewall behind it)", said)
	case code/100 == 3:
		return fmt.Errorf("%s (it wants to send a browser to another page, such as a sign-in: ask its admin to except this destination)", said)
	}
	return fmt.Errorf("%s (ask its admin whether it allows CONNECT to this destination)", said)
}

func (p Proxy) unauthenticated(proxy string, offered []string) string {
	head := fmt.Sprintf("proxy %s wants authentication (407)", proxy)
	where := "relay.proxy.username and password_file"
	if p.FromEnvironment {
		where = "user and password in HTTPS_PROXY"
	}
	switch {
	case len(offered) > 0 && !slices.Contains(offered, "Basic"):
		return fmt.Sprintf("%s by %s, and this agent speaks Basic alone: ask its admin for Basic, or to let this host pass to the relay without signing in", head, strings.Join(offered, ", "))
	case p.Username == "":
		return head + ": set " + where
	}
	return head + ": user or password are refused; check " + where
}

// schemes finds the names of authentication schemes in challenges (RFC 9110, 11.6.1), of those that are known.
func schemes(challenges []string) (found []string) {
	for _, known := range []string{"Basic", "Negotiate", "NTLM", "Kerberos", "Digest", "Bearer"} {
		for _, c := range challenges {
			for _, part := range strings.Split(c, ",") {
				name, _, _ := strings.Cut(strings.TrimSpace(part), " ")
				if strings.EqualFold(name, known) && !slices.Contains(found, known) {
					found = append(found, known)
				}
			}
		}
	}
	return found
}

func explainProxyAnswer(ctx context.Context, proxy string, long bool, err error) error {
	var ne net.Error
	switch {
	case ctx.Err() != nil || errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("proxy %s took the conn and gave no answer to CONNECT in time: it may be overloaded, or no proxy: %w", proxy, os.ErrDeadlineExceeded)
	case long:
		return fmt.Errorf("proxy %s answers CONNECT with a head longer than %d bytes", proxy, maxProxyHead)
	case errors.Is(err, errInterim):
		return fmt.Errorf("proxy %s answers CONNECT with nothing but interim answers (1xx)", proxy)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("proxy %s closed the conn without an answer to CONNECT: it may want https:// in relay.proxy.url, or refuse this host: %w", proxy, err)
	case errors.As(err, new(*net.OpError)):
		return fmt.Errorf("read the answer of proxy %s: %w", proxy, err)
	}
	// The text of the error would repeat what was sent.
	return fmt.Errorf("what answers at %s does not speak HTTP: check relay.proxy.url (https:// if the proxy itself speaks TLS)", proxy)
}

func explainProxyTLS(proxy string, err error) error {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("TLS with proxy %s: %w (set relay.proxy.ca_file to the CA of the proxy)", proxy, err)
	case errors.As(err, &record):
		return fmt.Errorf("TLS with proxy %s: %w (the proxy speaks no TLS: write http:// in relay.proxy.url)", proxy, err)
	}
	return fmt.Errorf("TLS with proxy %s: %w", proxy, err)
}

// outer is TLS that another TLS runs in. Its Close does not wait to say goodbye: the inner one's end counts.
type outer struct{ *tls.Conn }

func (o outer) Close() error { return o.Conn.NetConn().Close() }
