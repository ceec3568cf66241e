// Package authz decides whether a principal may do an action. It is pure: no database, no clock, no I/O.
//
// Actions is the permission table: every action with the operation or route that it guards. What is not in it is refused. A
// role is a set of actions; a grant gives a role on a workspace or on one connection. Grants only ever add: there is no order
// among them, none takes away, and what no grant allows is denied.
package authz
