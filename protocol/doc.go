// Package protocol is the contract between agent and relay: paths, headers, message types, error codes, versions. It
// imports the standard library only. SPEC.md says the same in prose, so that a stranger can implement a peer.
//
// The conversation, inside one tunnel (mutual TLS 1.3, then a multiplexer whose streams each carry HTTP/1.1):
//
//	agent                                      relay
//	  │ POST /v1/hello    Hello ──────────────►  │   who I am is in my certificate; this is what I run
//	  │ ◄──────────────────────────── Welcome    │   read it: only now the agent is connected
//	  │                                          │
//	  │ ◄──────── POST /v1/database/sales/query  │   one stream a request, header and body in one flight
//	  │ rows … end, trailer Fairlead-Outcome ──► │
//	  │                                          │
//	  │ POST /v1/events   EventBatch ─────────►  │   the agent's audit log, in order
//	  │ ◄──────────────────────────── Receipt    │   durable at the relay up to here
//	  │ POST /v1/renew    RenewRequest ───────►  │   before two thirds of the certificate's life
//
// Compatibility: fields are only added; an unknown JSON field in an answer is ignored; an unknown parameter, header
// value or operation in a request is refused, because ignoring it could do more than was asked. A constraint that must
// be honoured stands in Fairlead-Require; an agent that does not know its name answers "unsupported" and does nothing.
package protocol
