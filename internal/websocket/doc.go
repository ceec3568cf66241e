// Package websocket carries a plain byte stream over WebSocket (RFC 6455), for ways that pass nothing but HTTP on port 443.
//
// A Conn is a net.Conn. What is written goes out as binary messages, one frame each; what comes in is read as a stream:
// where a message ends means nothing, so no message is ever assembled or held, whatever its length. Client makes one of a
// connection that was dialled, Accept one of an HTTP request.
//
// What it promises:
//
//   - Memory does not depend on the peer: no buffer stands idle, a frame's header and a control frame are all that is held.
//   - A peer that breaks the protocol, or sends nothing but empty and control frames, gets an error, not patience.
//   - Deadlines cost nothing that came: a Read that timed out goes on where it was. Close never waits for the peer.
//   - An end is true: Read gives io.EOF only after a close frame. A connection that was cut gives io.ErrUnexpectedEOF.
//
// WebSocket has no half-close: after a close frame nothing more comes. What must end one direction alone does so inside the
// stream. Extensions (compression) are not offered and not taken. Pings are answered, not sent: who uses the stream proves
// its peer by a round trip of its own.
//
// The package never judges who the peer is. It is a coat: what goes through must protect itself.
package websocket
