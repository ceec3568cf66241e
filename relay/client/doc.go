// Package client speaks the relay's HTTP API (/api/v1) and holds the JSON shapes of it, so that the API server, the
// command line and other Go programs share one truth.
//
// It promises: results stream, nothing is held whole in memory; every failure that the relay or the site names comes
// back as a *protocol.Error; a cut answer is an error, never a short success; TLS is always verified, against the
// given CA alone where one is given. It never retries an operation that may change something, never follows a
// redirect with the token, and never prints the token.
//
// It imports protocol, internal/secret and the standard library only.
package client
