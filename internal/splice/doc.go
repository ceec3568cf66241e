// Package splice copies raw bytes both ways between two conns, with half-close carried over, until both directions have
// ended.
package splice
