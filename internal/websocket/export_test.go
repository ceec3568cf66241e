package websocket

import "net"

// Over is a Conn on a connection whose handshake is done.
func Over(c net.Conn, client bool) *Conn { return newConn(c, client, nil) }

// AcceptOf is the proof of a handshake.
func AcceptOf(key string) string { return accept(key) }
