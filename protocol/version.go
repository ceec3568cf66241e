package protocol

// Version is the newest protocol version this build speaks; MinVersion is the oldest it still accepts.
//
//	1  2026-11  first version
const (
	Version    = 1
	MinVersion = 1
)

// ALPN names (RFC 7301). Tunnels, lanes and enrolment share one TCP port with the relay's API; the name picks the listener.
const (
	// ALPNTunnel is spoken by an enrolled agent: mutual TLS 1.3, then yamux.
	ALPNTunnel = "fairlead/1"
	// ALPNLane is spoken by an enrolled agent on a connection of its own for one stream at a time: mutual TLS 1.3, then the
	// frames of SPEC.md, section "Lanes".
	ALPNLane = "fairlead-lane/1"
	// ALPNEnroll is spoken once by an agent that has no certificate yet: TLS 1.3 with the pinned CA, then HTTP/1.1.
	ALPNEnroll = "fairlead-enroll/1"
)

// UpgradeTunnel is the Upgrade token that turns a caller's connection to the relay into a tunnel of dials: yamux, whose
// streams each carry one dial request of the API in HTTP/1.1. Agents do not know it.
const UpgradeTunnel = "fairlead-tunnel"

// UpgradeDial is the Upgrade token (RFC 9110, 7.8) that turns a stream into raw bytes of a dialled target.
const UpgradeDial = "fairlead-dial"
