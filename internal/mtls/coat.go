package mtls

import "crypto/tls"

// CoatTLS is the agent's side of the TLS around a WebSocket. It is a coat: what is inside proves both ends by itself
// (AgentTLS, EnrollClientTLS), so whoever ends the coat sees ciphertext and may drop it, as anybody on a network may. Its
// certificate is not judged: it may be a load balancer's, or that of a proxy that inspects TLS, and the relay's own is of no
// CA that a host knows. No client certificate and no secret is ever sent in it. See internal/adr/0007.
func CoatTLS(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: host, // for routers and load balancers
		NextProtos: []string{"http/1.1"},
		// A small hello: the large one of a post-quantum exchange is dropped by some of the middleboxes that this way is for.
		CurvePreferences:            []tls.CurveID{tls.X25519, tls.CurveP256},
		SessionTicketsDisabled:      true,
		InsecureSkipVerify:          true,
		DynamicRecordSizingDisabled: true,
	}
}
