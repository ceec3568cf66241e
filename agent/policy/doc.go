// Package policy is the site's last word: it decides from the agent's own file whether one operation may be done.
//
//	agent.yaml ──► Config ──New──► Policy (immutable) ◄──Decide── Operation (what the relay asks)
//	                                     │
//	                                     ▼
//	               Decision: allow or deny, the rule that decided, caps, masks, the cleaned target
//
// It promises:
//   - What is not allowed is denied: an unknown profile, operation, verb, method or target, a malformed path, an empty list.
//   - A deny entry wins over every allow entry and every profile, whatever the order.
//   - What the relay sends along can only narrow: the smaller cap holds, masks add up, ReadOnly refuses writes.
//   - A target is decided in its canonical form, and that form is what the Decision hands on for execution.
//   - An unknown profile looks like one that does not allow the operation.
//
// It is pure: it opens no file, resolves no name, dials nothing, reads no environment and no clock.
package policy
