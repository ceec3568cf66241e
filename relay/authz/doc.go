// Package authz decides whether a principal may do an action. It is pure: no database, no clock, no I/O; when and from where
// somebody asks is told to it.
//
// Actions is the permission table: every action with the kind of asset and the verb that it stands for, and the operation or
// route that it guards. What is not in it is refused. A role is a set of actions: a system role by its name, a custom role by
// its id. A grant gives a role on a workspace, an environment, a project, a folder or one connection, for a time or without end, from
// some networks or from everywhere. Grants only ever add: there is no order among them, none takes away, and what no grant allows is
// denied.
package authz
