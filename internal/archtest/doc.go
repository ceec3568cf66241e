// Package archtest holds the rules of the house as tests: which package may import which, that every package says what
// it is, that names mean something, that the list of direct dependencies is the agreed one, and that some calls stand
// only where they belong. It reads the source files itself, because a test that asks the go command is cached and
// passes on violations.
package archtest
