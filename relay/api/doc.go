// Package api is the relay's HTTP API: the admin routes and the data plane under /api/v1, with OpenAPI 3.1 generated from
// the code and problem+json errors (RFC 9457).
//
// Every request passes enter: request id, one snapshot of the rules, source address, token, allowlist, and the action
// that the route names; a route without an action in the permission table is refused. Operations on connections go on to
// dispatch.Do. An admin route that changes something is recorded before it acts.
//
// The package knows HTTP and nothing of agents. Error bodies never echo a value that was sent.
package api
