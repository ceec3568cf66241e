// Package enroll is the installation's certificate authority and the relay's side of join tokens. It keeps nothing: callers
// seal and store what Marshal gives, and record what was issued.
//
// One root (ECDSA P-384, 20 years) for an installation, kept by the relay; it signs relays' certificates and one CA for
// each workspace (2 years), which signs that workspace's agents and nothing else: package mtls refuses an agent whose
// workspace is not its CA's, and a relay that the root did not sign itself.
//
// Of a certificate request only the public key is taken. Names, usages, lifetimes and extensions come from the relay's own
// template, so there is nothing in a request that could widen a right.
//
// Revocation goes by serial number and by the hash of the public key (Issued.SPKI), never by the hash of a certificate,
// which whoever holds it can change without breaking its signature.
package enroll
