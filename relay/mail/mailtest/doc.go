// Package mailtest is a real SMTP server in the test's own process, with faults on demand. It is for tests alone.
package mailtest
