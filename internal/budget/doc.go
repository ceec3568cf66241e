// Package budget bounds what one party may use of what all share: operations a second, operations at a time, bytes a second
// towards the caller, bytes a day. The relay keeps budgets for workspaces and connections, the agent for its profiles and the
// site as a whole.
//
// Promises:
//
//   - Rate and concurrency refuse: the refusal names who refused, which budget, its number and when to try again. A refusal
//     takes nothing from any budget.
//   - Bytes are shaped, not cut: who writes waits for its turn. Turns go round in pieces of 16 KiB, so that a bulk transfer does
//     not keep an interactive stream waiting, and each budget has turns of its own: one that is used up costs another nothing.
//   - Limits change while operations run; nothing is cut by that, and what waits goes by the new ones.
//   - A budget without limits costs a few atomic operations for each operation, and a look at a pointer for each piece of data.
//
// Flood is the budget of like facts in an audit log: a few are told one by one, the rest is counted, and nothing is lost from
// the count.
//
// It never starts a goroutine and never logs.
package budget
