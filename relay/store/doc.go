// Package store keeps the relay's state in SQLite: ids, times, states, keyed digests, and sealed bytes that it cannot open.
// It holds no key and imports no package that does; relay/vault seals what comes in and opens what goes out, relay/directory
// puts the two together.
//
// Promises: a write transaction is durable when Write returns (WAL, synchronous=FULL) or has left nothing; every Write counts
// the generation up, so that a reader of Generation learns of changes by this or another process; a join token is consumed at
// most once. Open refuses a network file system, a damaged file and a file that a newer release wrote.
//
// The SQL keeps to what PostgreSQL takes too, except for the parameter marks.
package store
