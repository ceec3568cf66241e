// Package testenv starts a whole world for tests: a relay, an enrolled agent and what it reaches, in one process over real
// TLS or the memory transport, or as the built binaries. It is the only package that imports both halves.
//
// Listeners are on ":0" of the loopback interface, folders are the test's own, and when the test ends everything is
// stopped, joined and checked for goroutines left over.
package testenv
