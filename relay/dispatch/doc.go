// Package dispatch is the trip of one request through the relay, top to bottom in one function.
//
//	one snapshot → workspace and allowlist → connection → authz.Decide → audit.Begin → stream, header and body in one
//	flight → the record is durable → the answer is copied → audit.End
//
// The order is the security. There is no chain of plugins to put something between, and no second way round: every
// operation on a connection goes through Do. A denial is recorded by the same call as an admission. If the record
// cannot be made durable, not a byte of the answer is released. The bytes of a dial are in that flight, too (Raw).
package dispatch
