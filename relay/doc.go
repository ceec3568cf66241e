// Package relay is the cloud half: one port for agents and people, the rules about who may ask what, the record, and the
// way through to the agents' tunnels.
//
//	people ──HTTPS──► api ─► authn ─► dispatch.Do ─► hub ─► stream ══ tunnel ══► agent
//	                                     │ authz, audit
//	agents ══ mutual TLS 1.3 ══► control: hello, renew, events        join token ──► enrolment
//
// New opens the state and takes the port; Run serves until its context ends, then drains. The relay can narrow what a
// site allows, never widen it.
package relay
