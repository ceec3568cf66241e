// Package tunnel carries many streams over one mutually authenticated connection between agent and relay.
//
// A Tunnel has three implementations with the same semantics, held to them by one conformance suite: yamux over TLS 1.3
// (Dial, Server), on a socket or inside a WebSocket (Mux.Hand); QUIC (DialQUIC, QUICListener); and memory (Memory, for tests;
// it works inside testing/synctest bubbles, the others do not).
//
// What it promises:
//
//   - A stream's end is true: Read gives io.EOF only if the peer said that no more comes. A tunnel that died gives an
//     error, so that a cut is never taken for an end.
//   - Closing a stream wakes its own blocked Read and Write.
//   - A stream over yamux tells when a Read may not wait (AwaitRead), so that an idle one needs no goroutine to stand in it.
//   - A peer can neither hold more memory than Config says, nor keep this side from its other streams by not reading.
//   - Over yamux, slow readers lose nothing while the first windows of all streams (256 KiB each) fit into half of
//     MaxBuffered: larger windows are lent as far as there is room (credit.go). Over QUIC and in memory, where windows are
//     whole, and beyond that number the stream that holds most is cut.
//   - A dead or silent peer is found within KeepAlive + PingTimeout; a connection that takes no bytes within
//     WriteTimeout ends.
//   - A tunnel ends when the peer's certificate does.
//
// yamux v0.1.2 alone promises little of this. The connection that it is given (wire.go) watches every frame in both
// directions, and ends streams and sessions where yamux would wait, spin or grow.
//
// QUIC leaves less to hold in, and tells less: the backlog, round trips to the process and what is held unread are found out
// by a control stream and by counting (quiccontrol.go, quicwatch.go).
//
// The package never decides what a stream may do: each stream is authorised by those who serve it.
package tunnel
