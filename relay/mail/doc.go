// Package mail sends e-mail through the one SMTP server that relay.yaml names: one-time codes, and notices to people whose account
// was changed.
//
// It promises: a message has one recipient, is plain text, and stands in the queue in memory until it was sent, refused for good, or
// is too old. TLS is demanded and its certificate verified, and nothing goes without; only a server on this machine may be spoken to
// in clear. How many messages go for a workspace and to a recipient is bounded, and so is what one workspace has of the queue. No notice
// to somebody is held back for what was told to others.
//
// It never writes an address or a text to a log or to the disk, never retries what was refused for good, and never tracks who reads.
package mail
