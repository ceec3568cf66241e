package websocket

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Protocol is the subprotocol that both ends name (RFC 6455, 1.9): the bytes are those of the relay's port.
const Protocol = "fairlead.1"

const (
	maxHead      = 16 << 10 // of the answer to a handshake, interim answers included
	maxInterim   = 8        // answers 1xx before the one that counts
	writeTimeout = 10 * time.Second
)

// A RefusedError is an answer to the handshake that is no upgrade.
type RefusedError struct {
	Status int    // of HTTP
	Server string // the header of this name: who answered, if it says
	HTML   bool   // it answers as to a browser
}

func (e *RefusedError) Error() string {
	s := fmt.Sprintf("asked for a WebSocket, answered with status %d", e.Status)
	if e.Server != "" {
		s += fmt.Sprintf(" by %q", e.Server)
	}
	if e.HTML {
		s += " and a page for a browser"
	}
	return s
}

// Client asks for a WebSocket on a connection that was dialled, and is ready for use. host goes into the Host header. What
// the peer answers is bounded in size, number and, by ctx, in time. On an error the connection is left to the caller.
func Client(ctx context.Context, conn net.Conn, host, path string) (*Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails (crypto/rand)
	key := base64.StdEncoding.EncodeToString(nonce[:])
	req := "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: fairlead-agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: " + key + "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: " + Protocol + "\r\n\r\n"
	if _, err := io.WriteString(conn, req); err != nil {
		return nil, fmt.Errorf("ask for a WebSocket: %w", told(ctx, err))
	}
	limited := &io.LimitedReader{R: conn, N: maxHead}
	br := bufio.NewReaderSize(limited, 4<<10)
	var resp *http.Response
	for i := 0; ; i++ {
		var err error
		if resp, err = http.ReadResponse(br, &http.Request{Method: http.MethodGet}); err != nil {
			if limited.N <= 0 {
				err = fmt.Errorf("the answer's head is longer than %d bytes", maxHead)
			}
			return nil, fmt.Errorf("read the answer to a WebSocket handshake: %w", told(ctx, err))
		}
		if resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			break
		}
		if i == maxInterim {
			return nil, errors.New("read the answer to a WebSocket handshake: nothing but interim answers")
		}
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		server := resp.Header.Get("Server")
		return nil, &RefusedError{Status: resp.StatusCode, Server: server[:min(len(server), 80)], HTML: strings.Contains(resp.Header.Get("Content-Type"), "html")}
	}
	h := resp.Header
	if !hasToken(h, "Connection", "upgrade") || !hasToken(h, "Upgrade", "websocket") || h.Get("Sec-WebSocket-Accept") != accept(key) {
		return nil, fmt.Errorf("%w: the answer does not fit the handshake; it may come from a cache", ErrProtocol)
	}
	if h.Get("Sec-WebSocket-Protocol") != Protocol || h.Get("Sec-WebSocket-Extensions") != "" {
		return nil, fmt.Errorf("%w: what answers is not a relay: it does not take the subprotocol %s", ErrProtocol, Protocol)
	}
	if !stop() {
		return nil, fmt.Errorf("ask for a WebSocket: %w", ctx.Err())
	}
	// A proxy on the way may send a ping at once; the relay itself speaks only after us.
	early, err := br.Peek(br.Buffered())
	if err != nil {
		return nil, fmt.Errorf("read the answer to a WebSocket handshake: %w", err)
	}
	return newConn(conn, true, slices.Clone(early)), nil
}

// told says that it was the context that ended a call.
func told(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// A HandshakeError is a request that cannot become a WebSocket, with the status that tells why.
type HandshakeError struct {
	Status  int
	Message string
}

func (e *HandshakeError) Error() string { return e.Message }

// Accept turns a request into a WebSocket. Requests of browsers are refused: they bear an Origin, and no page has business
// here. On a HandshakeError nothing was answered yet; on another error the connection is gone. The Conn has no deadline.
func Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	key, err := check(r)
	if err != nil {
		return nil, err
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	early, err := rw.Reader.Peek(rw.Reader.Buffered())
	if err == nil {
		err = conn.SetDeadline(time.Now().Add(writeTimeout))
	}
	if err == nil {
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "+
			accept(key)+"\r\nSec-WebSocket-Protocol: "+Protocol+"\r\n\r\n")
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = bottom(conn).Close()
		return nil, fmt.Errorf("answer a WebSocket handshake: %w", err)
	}
	return newConn(conn, false, slices.Clone(early)), nil
}

// check judges a request and gives its key (RFC 6455, 4.2.1).
func check(r *http.Request) (string, error) {
	fault := func(status int, msg string) (string, error) { return "", &HandshakeError{status, msg} }
	h := r.Header
	if len(h.Values("Origin")) > 0 {
		return fault(http.StatusForbidden, "browsers are not served here")
	}
	if r.Method != http.MethodGet || r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return fault(http.StatusBadRequest, "a WebSocket begins with GET over HTTP/1.1")
	}
	if !hasToken(h, "Connection", "upgrade") || !hasToken(h, "Upgrade", "websocket") {
		return fault(http.StatusUpgradeRequired, "only WebSocket is spoken here; a proxy on the way may have taken the Upgrade header out")
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return fault(http.StatusBadRequest, "the request has a body")
	}
	if v := h.Values("Sec-WebSocket-Version"); len(v) != 1 || v[0] != "13" {
		return fault(http.StatusUpgradeRequired, "WebSocket version 13 is spoken here")
	}
	keys := h.Values("Sec-WebSocket-Key")
	if len(keys) != 1 {
		return fault(http.StatusBadRequest, "want one Sec-WebSocket-Key")
	}
	if b, err := base64.StdEncoding.Strict().DecodeString(keys[0]); err != nil || len(b) != 16 {
		return fault(http.StatusBadRequest, "Sec-WebSocket-Key is not 16 bytes in base64")
	}
	if !hasToken(h, "Sec-WebSocket-Protocol", Protocol) {
		return fault(http.StatusBadRequest, "want the subprotocol "+Protocol)
	}
	return keys[0], nil
}

// accept is the proof that the handshake was read (RFC 6455, 4.2.2). SHA-1 protects nothing here: it tells a WebSocket from a
// cached answer.
func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// hasToken looks for a token in a list header; case does not count.
func hasToken(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for _, t := range strings.Split(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}
