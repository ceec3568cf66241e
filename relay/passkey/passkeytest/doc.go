// Package passkeytest is an authenticator in software, with the browser before it, for tests: it answers ceremonies as a good one
// does, or with one thing wrong.
package passkeytest
