package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// A Conn is raw bytes to a target. CloseWrite says that nothing more comes from this side; reading goes on.
type Conn interface {
	net.Conn
	CloseWrite() error
}

// Dial opens raw bytes to the connection's target. The context bounds the dial, not the life of the Conn.
func (c *Client) Dial(ctx context.Context, connection string) (Conn, error) {
	conn, err := c.upgrade(ctx, c.conn(connection, "dial"), protocol.UpgradeDial)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// upgrade makes a request that turns its connection into another protocol. The context bounds that, not what comes after.
func (c *Client) upgrade(ctx context.Context, escaped, to string) (*dialed, error) {
	// The request's context would end the connection too, so it gets one of its own that ends only if the dial is given up.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, end)
	var conn net.Conn
	life = httptrace.WithClientTrace(life, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { conn = i.Conn }})
	resp, err := c.sendRaw(life, call{
		method: http.MethodPost, escaped: escaped, header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {to}},
	})
	if !stop() && err == nil {
		resp.Body.Close()
		err = ctx.Err()
	}
	if err != nil {
		end()
		if ctx.Err() != nil {
			return nil, c.cut(ctx, err)
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer end()
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	body, ok := resp.Body.(io.ReadWriteCloser)
	half, canHalf := conn.(interface{ CloseWrite() error })
	if !ok || !canHalf || !strings.EqualFold(resp.Header.Get("Upgrade"), to) {
		end()
		resp.Body.Close()
		return nil, protocol.Errorf(protocol.CodeInternal, "the relay switched to another protocol than the one asked for")
	}
	return &dialed{Conn: conn, body: body, half: half, end: end}, nil
}

// dialed reads through the response's body, which holds what was read ahead, and does all else on the socket.
type dialed struct {
	net.Conn
	body io.ReadWriteCloser
	half interface{ CloseWrite() error }
	end  func()
}

func (d *dialed) Read(b []byte) (int, error) { return d.body.Read(b) }

func (d *dialed) CloseWrite() error { return d.half.CloseWrite() }

func (d *dialed) Close() error {
	err := d.body.Close()
	d.end()
	return err
}

// Request passes one HTTP request on to the connection's target. target is path and query, beginning with "/". The
// answer is the target's, whatever its status; an error is the relay's or the agent's. The caller closes the body.
func (c *Client) Request(ctx context.Context, connection, method, target string, header http.Header, body io.Reader, size int64) (*http.Response, error) {
	u, err := url.Parse(target)
	if err != nil || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") || u.Host != "" || u.Fragment != "" {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "the target is not a path with query", Hint: `it begins with one "/", for example /api/v1/customers?limit=5`}
	}
	resp, err := c.sendRaw(ctx, call{
		method: method, escaped: c.conn(connection, "http") + u.EscapedPath(), rawQuery: u.RawQuery, header: header, body: body, size: size,
	})
	if err != nil {
		return nil, err
	}
	// Errors of the relay and the agent carry their origin in a header; the target's answers never do.
	if resp.Header.Get(protocol.HeaderOrigin) != "" {
		defer resp.Body.Close()
		return nil, problemOf(resp)
	}
	return resp, nil
}
