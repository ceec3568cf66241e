// Package mtlstest makes certificates for tests: a root, workspace CAs below it, and leaves, each with whatever fault a
// test wants. It is no certificate authority: relay/enroll is.
package mtlstest
