// Package certificate gets certificates for the domains of workspaces by ACME (RFC 8555), and renews them:
//
//	a domain is made ──► order ──► tls-alpn-01 on the relay's own port (RFC 8737) ──► certificate, sealed in the relay's state
//
// Nobody but the relay's state says for which names: a name in a handshake gets none by being asked for. No request waits for an order;
// until there is a certificate, callers are shown the relay's own.
package certificate
