// Package agent is the on-prem half: it dials out to the relay, and does for callers exactly what agent.yaml allows.
//
//	relay ══ tunnel (uplink) ══► trips: decide (policy) ─► record the intent ─► connector ─► record the outcome
//	                               ▲                          │
//	            agent.yaml ────────┘                          └─► audit log ─► feed ─► relay
//
// The site has the last word: the policy is read from the local file alone, hot reloads swap it as a whole, and nothing
// that the relay sends can widen it. The agent listens on nothing, and never gives up reconnecting. An operation is done
// only after its intent is durable in the agent's own audit log; when that cannot be written, nothing is done.
package agent
