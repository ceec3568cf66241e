// Package uplink keeps the agent's tunnels to its relays: dial, hello, heartbeat, renew, reconnect, drain.
//
//	dial ──► TLS ──► Hello ──► Welcome read: connected ──► serve streams ──► lost ──► wait (full jitter) ──► dial …
//
// It never gives up: the wait grows from half a second to a minute and stays there, and is never longer than the cut has
// lasted. A tunnel counts as connected only after the relay's Welcome was read, because with TLS 1.3 a client without a valid
// certificate learns so only at its first read. The wait starts small again only after a tunnel has lived for a while, so that a
// relay that accepts and drops is not hammered.
//
// The way out leads through a proxy where agent.yaml names one. Where something on the way does not let TLS on TCP pass, auto
// goes inside a WebSocket; where the relay offers QUIC and UDP passes, it moves there. It remembers by address what it found: see
// choices. What runs inside is the same tunnel.
package uplink
