// Package clienttest is a relay for tests of what calls one: it speaks the API's table over real TLS, keeps its state in
// memory and misbehaves on request. It decides nothing and records nothing; it is no model of the relay's rules.
package clienttest
