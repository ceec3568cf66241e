package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

// Config says where the relay is and who asks.
type Config struct {
	// Relay is the relay's address: HOST, HOST:PORT or https://HOST:PORT. Without a port it is 8443. There is no plain HTTP.
	Relay string
	Token secret.Bytes // API token; zero for the few calls that need none
	// CA, or the PEM file CAFile, is what the relay's certificate must chain to, and nothing else. Without both it is the
	// system's pool.
	CA     *x509.CertPool
	CAFile string
	// Proxy is an HTTP CONNECT proxy on the way to the relay, http://[USER:PASSWORD@]HOST:PORT. "" is none: the environment's
	// proxies are not asked, for it is the caller who decides the route.
	Proxy string
	// Workspace is a name or id; "" means "default".
	Workspace string
	// Timeout bounds calls whose answer is small: lists, creations, schema excepted. 0 means 30 s. Queries, files and dials
	// are bounded by their context alone.
	Timeout   time.Duration
	UserAgent string // "" means "fairlead-client"
}

// DefaultPort is the relay's port when an address names none.
const DefaultPort = "8443"

// maxAnswer bounds a JSON answer that is not streamed; maxProblem an error body.
const (
	maxAnswer  = 64 << 20
	maxProblem = 64 << 10
)

// A Client calls one relay as one principal. Safe for concurrent use; connections are kept and reused. Close it.
type Client struct {
	conf Config
	base *url.URL // https://HOST:PORT
	http *http.Client
	only string // If-Match of its changes
	key  string // Idempotency-Key of one creation
}

// If gives a client whose changes are made only to what etag names (412 precondition otherwise); "*" names whatever is there, and
// "" has no condition. It shares the connections: close one of the two.
func (c *Client) If(etag string) *Client {
	o := *c
	o.only = etag
	return &o
}

// New checks the configuration. It does not call the relay.
func New(c Config) (*Client, error) {
	base, err := parseRelay(c.Relay)
	if err != nil {
		return nil, err
	}
	if c.CAFile != "" && c.CA == nil {
		if c.CA, err = readCA(c.CAFile); err != nil {
			return nil, err
		}
	}
	var proxy func(*http.Request) (*url.URL, error)
	if c.Proxy != "" {
		u, err := url.Parse(c.Proxy)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
			return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "the proxy's address is malformed", Hint: "want http://HOST:PORT"}
		}
		proxy = http.ProxyURL(u)
	}
	if c.Workspace == "" {
		c.Workspace = "default"
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.UserAgent == "" {
		c.UserAgent = "fairlead-client"
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	var protocols http.Protocols
	protocols.SetHTTP1(true) // one stream a connection: no head-of-line blocking, and Upgrade works
	t := &http.Transport{
		Proxy: proxy, DialContext: dialer.DialContext, TLSHandshakeTimeout: 10 * time.Second, Protocols: &protocols,
		TLSClientConfig:    &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.CA},
		DisableCompression: true, // a file's bytes and a range of them are what the site has
		IdleConnTimeout:    90 * time.Second, MaxIdleConnsPerHost: 16, ExpectContinueTimeout: 5 * time.Second,
		ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10, MaxResponseHeaderBytes: 256 << 10,
	}
	return &Client{conf: c, base: base, http: &http.Client{Transport: t, CheckRedirect: noRedirect}}, nil
}

// Close closes the kept connections. Calls under way go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Relay gives the relay's address in its full form.
func (c *Client) Relay() string { return c.base.String() }

// Workspace gives the workspace that calls are made in.
func (c *Client) Workspace() string { return c.conf.Workspace }

func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func parseRelay(s string) (*url.URL, error) {
	bad := func(hint string) error {
		return &protocol.Error{Code: protocol.CodeInvalid, Message: fmt.Sprintf("relay address %q is malformed", s), Hint: hint}
	}
	if s == "" {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "no relay address is given", Hint: "want HOST:PORT or https://HOST:PORT"}
	}
	if scheme, _, ok := strings.Cut(s, "://"); !ok {
		s = "https://" + s
	} else if scheme != "https" {
		return nil, bad("the relay speaks https only")
	}
	u, err := url.Parse(s)
	if err != nil || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return nil, bad("want HOST:PORT or https://HOST:PORT")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, bad("a port is a number from 1 to 65535")
		}
	}
	u.Path = ""
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), DefaultPort)
	}
	return u, nil
}

func readCA(file string) (*x509.CertPool, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, &protocol.Error{
			Code: protocol.CodeInvalid, Message: file + " holds no certificate in PEM form", Hint: "take ca.pem from the relay's data folder",
		}
	}
	return pool, nil
}

// path builds a path below the API's base from segments, each escaped whole.
func path(segments ...string) string {
	var b strings.Builder
	b.WriteString(BasePath)
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// ws builds a path below the workspace.
func (c *Client) ws(segments ...string) string {
	return path(append([]string{"workspaces", c.conf.Workspace}, segments...)...)
}

// conn builds a path below a connection.
func (c *Client) conn(connection string, segments ...string) string {
	return c.ws(append([]string{"connections", connection}, segments...)...)
}

// A call is one request to the relay. escaped is the path in escaped form.
type call struct {
	method, escaped string
	query           url.Values
	rawQuery        string // instead of query
	header          http.Header
	body            io.Reader
	size            int64 // of body: -1 unknown
}

// send makes the request. An answer of 400 or more, or a redirect, is an error; the caller closes the body otherwise.
func (c *Client) send(ctx context.Context, k call) (*http.Response, error) {
	resp, err := c.sendRaw(ctx, k)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	return resp, nil
}

func (c *Client) sendRaw(ctx context.Context, k call) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, k.method, c.base.String()+k.escaped, k.body)
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "the request cannot be built: method or path is malformed", Cause: err}
	}
	if req.URL.RawQuery = k.rawQuery; k.query != nil {
		req.URL.RawQuery = k.query.Encode()
	}
	if k.body != nil && k.size != 0 {
		req.ContentLength = k.size
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", c.conf.UserAgent)
	}
	if !c.conf.Token.IsZero() {
		req.Header.Set("Authorization", "Bearer "+c.conf.Token.ExposeString())
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transportError(ctx, err)
	}
	return resp, nil
}

// transportError gives the words for a relay that cannot be reached or trusted.
func (c *Client) transportError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("call the relay: %w", ctx.Err())
	}
	e := &protocol.Error{Code: protocol.CodeUnavailable, Message: "the relay at " + c.base.Host + " cannot be reached", Cause: err}
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &unknown):
		e.Code, e.Message = protocol.CodeUnauthenticated, "the certificate of the relay at "+c.base.Host+" is signed by a CA that is not trusted"
		e.Hint = "name the relay's ca.pem (--ca, FAIRLEAD_CA or \"fairlead login\")"
	case errors.As(err, &host):
		e.Code, e.Message = protocol.CodeUnauthenticated, "the certificate of the relay is not for "+c.base.Hostname()
		e.Hint = "use a name that the relay was set up with (--public-address)"
	case errors.As(err, &invalid):
		e.Code, e.Message = protocol.CodeUnauthenticated, "the certificate of the relay is not valid now"
		e.Hint = "check the clocks of both machines"
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		e.Message, e.Hint = "what listens at "+c.base.Host+" does not speak TLS", "check host and port"
	case errors.As(err, &dns):
		e.Message += ": the name is not known"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.Message += ": nothing listens there"
	case errors.As(err, &timeout) && timeout.Timeout():
		e.Message += ": no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		e.Code, e.Message = protocol.CodeInterrupted, "the relay closed the connection before it answered"
	}
	return e
}

// problemOf reads an error answer. One that is not a problem document still gives a code, by its status.
func problemOf(resp *http.Response) *protocol.Error {
	var p struct {
		Problem
		Message string `json:"message"` // protocol.Error as it stands
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType == ContentProblem || mediaType == "application/json" {
		b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
		if err != nil || json.Unmarshal(b, &p) != nil {
			p.Problem, p.Message = Problem{}, ""
		}
	}
	e := p.Err()
	if p.Message != "" {
		e.Message = p.Message
	}
	if e.Code == "" {
		e.Code = codeOf(resp.StatusCode)
	}
	if e.Message == "" {
		e.Message = "the relay answered " + resp.Status
		if l := resp.Header.Get("Location"); l != "" {
			e.Message += " to another place; it was not followed"
		}
	}
	if e.RequestID == "" {
		e.RequestID = resp.Header.Get(protocol.HeaderRequestID)
	}
	if o := resp.Header.Get(protocol.HeaderOrigin); e.Origin == "" {
		e.Origin = protocol.Origin(o)
	}
	if e.Rule == "" {
		e.Rule = resp.Header.Get(protocol.HeaderRule)
	}
	if after := resp.Header.Get("Retry-After"); after != "" && e.Hint == "" {
		e.Hint = "try again in " + after + " s"
	}
	return e
}

// codeOf is the code that fits an HTTP status best.
func codeOf(status int) protocol.Code {
	for _, c := range protocol.Codes {
		if c.Status() == status {
			return c
		}
	}
	if status >= 300 && status < 500 {
		return protocol.CodeInvalid
	}
	return protocol.CodeInternal
}

// do makes a call with a small JSON answer. in and out may be nil.
func (c *Client) do(ctx context.Context, method, escaped string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.conf.Timeout)
	defer cancel()
	return c.doLong(ctx, method, escaped, query, in, out)
}

// doLong is do without the time limit: the site's work may take long.
func (c *Client) doLong(ctx context.Context, method, escaped string, query url.Values, in, out any) error {
	return c.doIf(ctx, method, escaped, query, "", in, out)
}

// doIf is doLong for the version of a thing that etag names, when it is not empty.
func (c *Client) doIf(ctx context.Context, method, escaped string, query url.Values, etag string, in, out any) error {
	k := call{method: method, escaped: escaped, query: query, header: http.Header{"Accept": {"application/json, " + ContentProblem}}}
	if etag == "" && method != http.MethodGet {
		etag = c.only
	}
	if etag != "" {
		k.header.Set("If-Match", etag)
	}
	if c.key != "" {
		k.header.Set("Idempotency-Key", `"`+c.key+`"`)
	}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		k.body, k.size = bytes.NewReader(b), int64(len(b))
		k.header.Set("Content-Type", "application/json")
	}
	resp, err := c.send(ctx, k)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxProblem)) // so that the connection is reused
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return c.cut(ctx, err)
	}
	if len(b) > maxAnswer {
		return protocol.Errorf(protocol.CodeTooLarge, "the relay's answer is larger than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &protocol.Error{
			Code: protocol.CodeInternal, Message: "the answer is not what this version expects; is this address a Fairlead relay?", Cause: err,
		}
	}
	if p, ok := out.(*SignInPolicy); ok {
		p.ETag = resp.Header.Get("ETag")
	}
	return nil
}

// cut is the error of an answer that broke off.
func (c *Client) cut(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("call the relay: %w", ctx.Err())
	}
	return &protocol.Error{Code: protocol.CodeInterrupted, Message: "the answer broke off before its end", Cause: err}
}

// pageSize is how many items a page may have; the relay gives fewer if it wants.
const pageSize = "1000"

// all gathers every page of a list. The lists it is used for are made by people; one that never ends is an error.
func all[T any](ctx context.Context, c *Client, escaped string) ([]T, error) {
	var items []T
	for cursor, page := "", 0; ; page++ {
		var l List[T]
		q := url.Values{"limit": {pageSize}}
		if cursor != "" {
			q.Set("cursor", cursor)
		}
		if err := c.do(ctx, http.MethodGet, escaped, q, nil, &l); err != nil {
			return nil, err
		}
		items = append(items, l.Items...)
		if l.Cursor == "" {
			return items, nil
		}
		if l.Cursor == cursor || page > 10_000 {
			return nil, protocol.Errorf(protocol.CodeInternal, "the relay's list does not end")
		}
		cursor = l.Cursor
	}
}
