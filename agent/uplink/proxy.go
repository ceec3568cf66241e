package uplink

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// Proxy is the HTTP proxy on the way out. The zero value means none; the environment is never asked.
type Proxy struct {
	URL      *url.URL // http://host:port
	Username string
	Password secret.Bytes
}

// maxProxyHead bounds a proxy's answer to CONNECT.
const maxProxyHead = 64 << 10

// Dial opens a conn to addr, through the proxy when there is one (CONNECT, RFC 9110 9.3.6). Errors say who refused.
func (p Proxy) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}
	if p.URL == nil {
		conn, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, fmt.Errorf("%w (is the outgoing port open in the firewall?)", err)
		}
		return conn, nil
	}
	proxy := p.URL.Host
	if p.URL.Port() == "" {
		proxy = net.JoinHostPort(p.URL.Hostname(), "80")
	}
	conn, err := d.DialContext(ctx, network, proxy)
	if err != nil {
		return nil, fmt.Errorf("dial proxy %s: %w", proxy, err)
	}
	ok := false
	defer func() {
		if !ok {
			conn.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
		return nil, fmt.Errorf("set deadline on conn to proxy %s: %w", proxy, err)
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
	// The TLS server speaks only after our ClientHello, so the reader cannot swallow tunnel bytes.
	resp, err := http.ReadResponse(bufio.NewReaderSize(io.LimitReader(conn, maxProxyHead), 4<<10), req)
	if err != nil {
		return nil, fmt.Errorf("read the answer of proxy %s: %w", proxy, err)
	}
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return nil, fmt.Errorf("proxy %s wants authentication (407): check relay.proxy.username and password_file; offered: %q", proxy, resp.Header.Values("Proxy-Authenticate"))
	case resp.StatusCode/100 != 2:
		return nil, fmt.Errorf("proxy %s refused CONNECT %s: %s (ask its admin to allow this destination)", proxy, addr, resp.Status)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("clear deadline on conn to proxy %s: %w", proxy, err)
	}
	ok = true
	return conn, nil
}
