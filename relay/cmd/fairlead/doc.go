// Command fairlead is the caller's command line: it asks a relay for what its connections offer (rows, files, HTTP, raw
// bytes) and manages agents, connections, tokens and the audit log.
//
// It promises: a token is never taken from an argument and goes only to the relay that it belongs to; an answer that is
// not whole never looks whole; what the other side sent reaches a terminal without control characters; the exit status is
// that of docs/exit-codes.md.
//
// It holds no state but the saved login, and decides nothing: rights are the relay's and the site's affair.
package main
