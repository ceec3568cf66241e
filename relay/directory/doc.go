// Package directory is what the relay knows: workspaces, agent groups, agents, connections, principals, tokens, grants and
// allowlists. It composes relay/store, which keeps sealed rows, and relay/vault, which opens them.
//
// Decisions read a Snapshot: the whole state, decoded and immutable, behind one atomic pointer. Every change is one
// transaction, durable when the method returns, and by then the new Snapshot is in force, so that what was revoked is refused
// from that moment on. Changes by another process on the same database are seen within Config.Poll. When the database cannot be
// read for Config.StaleAfter, the Snapshot becomes empty: nobody is let in on rules that may have been withdrawn.
//
// Only what changes all the time without bearing on a decision (when an agent was seen and what it says of itself, when a token
// was used) is kept in memory first and written in batches; a crash may lose the last moments of it.
//
// Errors that a caller may see are *protocol.Error; all others are for the log.
package directory
