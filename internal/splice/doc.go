// Package splice copies raw bytes both ways between two conns, with half-close carried over, until both directions have
// ended.
//
// A direction that carries bytes has a goroutine with a buffer. One that nothing came on for a while has none where that can
// be done without: see Flow.
package splice
