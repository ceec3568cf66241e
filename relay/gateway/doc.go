// Package gateway opens TCP ports at the relay that lead to connections' targets, for tools that cannot run the fairlead
// command. Nobody shows a token at such a port, so it is closed thrice: the operator names the addresses that may be used at
// all, each gateway has an allowlist of its own, and the workspace's allowlist must admit the source too; with mutual TLS the
// client shows a certificate besides.
//
// It promises that each conn makes the trip of dispatch.Do as a dial, that what the rules no longer allow is reset as soon as
// they change, that handshakes are bounded in number and time, and that a port that cannot be opened is told of. It never
// reads the bytes that pass, and takes no address from them.
package gateway
