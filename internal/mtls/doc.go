// Package mtls says who stands at the other end of a connection between the halves, and makes the TLS settings for it.
//
// An identity is a URI in the certificate (the only URI SAN) and nothing else: no name, header or message can set it. It
// is read only from the leaf of a chain that was verified against the installation's own root, never from a certificate
// that merely came along in the handshake. Public CAs have no say.
//
// Two chains are valid:
//
//	relay: leaf ← root                    leaf: server authentication, role relay
//	agent: leaf ← workspace's CA ← root   leaf: client authentication, role agent, of the same workspace as its CA
//
// So a workspace's CA can speak neither for the relay nor for another workspace.
//
// Tunnels and enrolment speak TLS 1.3 only, without session tickets or 0-RTT: each connection proves its peer anew, so
// that nothing outlives a revocation. TLS checks a peer once; package tunnel ends what outlives its certificate.
//
// A Verifier remembers what chains were good by, so that many peers of one installation cost little: bytes and signatures,
// never time or revocation.
//
// The package never stores, issues or revokes: that is relay/enroll and its callers.
package mtls
