package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"

	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// sign is how much a failure of the plain way looks like the work of something in the middle.
type sign int

const (
	signNone sign = iota // the network, a proxy's word, or the relay's own
	signSoft             // cut, or silence: a relay that restarts looks the same
	signBusy             // the relay has no time, or somebody says so
	signHard             // somebody else answers, or speaks TLS and not our protocol
)

// readSign judges a failure of a tunnel over plain TLS, in its handshake or at its first request.
func readSign(err error) sign {
	var out outError
	var said *protocol.Error
	var record tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var hello helloError
	switch {
	case err == nil, errors.As(err, &out), errors.As(err, &said), errors.Is(err, mtls.ErrValidity), errors.Is(err, context.Canceled):
		return signNone
	case errors.As(err, &hello):
		// The handshake was whole, so it was the relay. A word of its TLS is its own; a cut can be anybody's.
		if hello.cause != nil && !isAlert(hello.cause) && isCut(hello.cause) {
			return signSoft
		}
		return signNone
	case isBusy(err):
		return signBusy
	case errors.Is(err, mtls.ErrUntrusted), errors.As(err, &unknown), errors.As(err, &record), errors.Is(err, tunnel.ErrProtocol), isAlert(err):
		return signHard
	case isCut(err):
		return signSoft
	}
	return signNone
}

// Blocked reports whether a failed handshake looks like the work of something on the way that lets only HTTP pass.
func Blocked(err error) bool { s := readSign(err); return s != signNone && s != signBusy }

// isAlert finds a TLS alert of the peer, or TLS that cannot be agreed on. crypto/tls has no exported type for either.
func isAlert(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return true
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		if s := e.Error(); strings.HasPrefix(s, "tls: ") && !strings.HasPrefix(s, "tls: failed to verify") {
			return true
		}
	}
	return false
}

// isBusy finds the alert by which a relay says, before a handshake, that too many wait for one. It is not proven who said it:
// it may cost a wait, and no more.
func isBusy(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == "tls: internal error"
}

func isCut(err error) bool {
	var ne net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err) ||
		errors.Is(err, tunnel.ErrPeerClosed) || errors.Is(err, tunnel.ErrPeerLost) || errors.Is(err, tunnel.ErrWriteTimeout) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// helloError is a failure after the handshake. cause is why the tunnel ended, nil if it lives.
type helloError struct {
	error
	cause error
}

func (e helloError) Unwrap() error { return e.error }

// explain adds what an admin can do to errors whose own text does not say it.
func explain(err error) string {
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var out outError
	switch {
	case err == nil:
		return "tunnel closed"
	case errors.As(err, &out):
		return err.Error() // says it already
	case isBusy(err):
		return err.Error() + " — the relay has no time for another handshake now, as after a restart; it lets its agents in one after the other"
	case errors.As(err, &unknown):
		return err.Error() + " — the certificate shown is not of this relay's own CA: a proxy or firewall on the way intercepts TLS; ask its admin to pass this destination through untouched"
	case errors.As(err, &record):
		if head := record.RecordHeader[:]; string(head[:4]) == "HTTP" || head[0] == '<' {
			return err.Error() + " — what answers speaks plain HTTP: a sign-in or block page of a proxy, or another port than the relay's"
		}
		return err.Error() + " — what answers does not speak TLS: check the address and port, or a proxy on the way"
	case errors.Is(err, tunnel.ErrNoUDP):
		return err.Error() + " — a firewall on the way drops UDP, or the relay's agents.quic is off: let UDP pass to the relay's port, or use relay.transport: auto"
	case strings.Contains(err.Error(), "no application protocol"):
		return err.Error() + " — what answers speaks TLS and not this tunnel: a load balancer, proxy or firewall ends TLS on the way; let it pass TCP through, or use relay.transport: websocket"
	}
	return err.Error()
}
