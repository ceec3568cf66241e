package protocol

import (
	"encoding/json"
	"time"
)

// Paths that the relay serves to an agent inside a tunnel (the agent opens the stream). All are POST with a JSON body
// of at most MaxControlBytes.
const (
	PathHello  = "/v1/hello"  // Hello → Welcome. Must be the first request of a tunnel
	PathRenew  = "/v1/renew"  // RenewRequest → RenewResponse
	PathEvents = "/v1/events" // EventBatch → Receipt
	PathStatus = "/v1/status" // Status → {}
	PathDrain  = "/v1/drain"  // {} → {}: the agent takes no new work on this tunnel
	// PathEnroll is served on ALPNEnroll connections only: EnrollRequest → EnrollResponse.
	PathEnroll = "/v1/enroll"
	// PathWebSocket is served to agents on the callers' side of the port: GET with an upgrade to WebSocket, which carries the
	// bytes of the port itself. It wants no API token: the TLS inside wants the agent's certificate.
	PathWebSocket = "/api/v1/tunnel"
	// PathNotice is served by the agent to the relay: Notice → {}.
	PathNotice = "/v1/notice"
	// PathLanes is served by the agent to the relay: Lanes → {}.
	PathLanes = "/v1/lanes"
)

// MaxControlBytes bounds a control body; MaxEventBatch bounds the events in one batch.
const (
	MaxControlBytes = 4 << 20
	MaxEventBatch   = 1000
)

// Hello is the agent's first word in a tunnel. Identity is not in it: that is taken from the certificate alone.
type Hello struct {
	Version      int            `json:"version"`
	MinVersion   int            `json:"min_version"`
	AgentVersion string         `json:"agent_version"`
	Instance     string         `json:"instance"` // random, one a process: tells a restart from a second tunnel
	Hostname     string         `json:"hostname,omitempty"`
	OS           string         `json:"os"`
	Arch         string         `json:"arch"`
	Constraints  []string       `json:"constraints"` // names it honours in HeaderRequire
	Status       Status         `json:"status"`
	Log          LogHead        `json:"log"`
	StartedMs    int64          `json:"started_ms"` // how long the process has run
	Profiles     []ProfileOffer `json:"profiles"`
	Lanes        int            `json:"lanes,omitempty"` // most lanes that it opens beside this tunnel; 0: it knows none
}

// MaxLanes is the most lanes that an agent opens beside one tunnel, whatever the relay asks for.
const MaxLanes = 16

// Lanes asks the agent to dial lanes to the relay of this tunnel, one for each ticket. A ticket counts once, for a short
// time, and for this tunnel alone.
type Lanes struct {
	Tickets [][]byte `json:"tickets"` // at most MaxLanes
}

// ProfileOffer tells the relay that a profile exists, never where it leads.
type ProfileOffer struct {
	Name       string      `json:"name"`
	Kind       Kind        `json:"kind"`
	Adapter    string      `json:"adapter,omitempty"` // database: postgresql, mysql …
	Operations []Operation `json:"operations"`
}

// Status is what the agent says of its configuration, at hello and after each reload.
type Status struct {
	ConfigDigest string         `json:"config_digest"`          // of the configuration in force
	ReloadError  string         `json:"reload_error,omitempty"` // set while a newer file is refused
	Profiles     []ProfileOffer `json:"profiles,omitempty"`
}

// LogHead names a point in an audit log: the hash of the record with that sequence number.
type LogHead struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"` // base64url of SHA-256
}

// Welcome is the relay's answer to Hello. Only after reading it may an agent call itself connected.
type Welcome struct {
	Version       int      `json:"version"`
	Relay         string   `json:"relay"`          // relay id
	Log           LogHead  `json:"log"`            // the agent's last event that the relay holds
	HeartbeatMs   int64    `json:"heartbeat_ms"`   // how often the agent should prove the tunnel
	ServerTimeMs  int64    `json:"server_time_ms"` // Unix milliseconds, to tell the admin of a wrong clock; never trusted
	RenewAfterMs  int64    `json:"renew_after_ms"` // 0: by the certificate's own two thirds
	RelayAddrs    []string `json:"relay_addrs,omitempty"`
	RetryAfterMs  int64    `json:"retry_after_ms,omitempty"`
	RelayRevision string   `json:"relay_revision,omitempty"`
	QUIC          bool     `json:"quic,omitempty"` // tunnels are taken in over QUIC, too: UDP, at the port of the address dialled
}

// EnrollRequest turns a join token and a certificate request into an identity.
type EnrollRequest struct {
	Token    string `json:"token"` // the secret part of the join token
	CSR      []byte `json:"csr"`   // PKCS #10, DER. Only its public key is taken
	Name     string `json:"name,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
	Version  string `json:"version"`
	// LogKey is the agent's Ed25519 public key for checkpoints of its audit log.
	LogKey []byte `json:"log_key"`
}

// EnrollResponse holds the first certificate. Chain is leaf first, DER; Root is the CA that the token pinned.
type EnrollResponse struct {
	Agent      string   `json:"agent"`
	Workspace  string   `json:"workspace"`
	Group      string   `json:"group"`
	Chain      [][]byte `json:"chain"`
	Root       []byte   `json:"root"`
	RelayAddrs []string `json:"relay_addrs"`
}

// RenewRequest asks for a new certificate for the tunnel's own identity, with a new key or the same.
type RenewRequest struct {
	CSR []byte `json:"csr"`
}

// RenewResponse holds the new chain. Both generations are valid until the new one has been used.
type RenewResponse struct {
	Chain [][]byte `json:"chain"`
}

// EventBatch carries audit records upstream in order, as the agent's own log lines, so that the chain can be checked.
type EventBatch struct {
	Records []json.RawMessage `json:"records"`
	// Oldest is the number of the oldest record that the agent still holds. A relay that lacks records from there on answers
	// with what it holds instead of a conflict, and the agent goes back. 0: not told.
	Oldest uint64 `json:"oldest,omitempty"`
}

// Receipt acknowledges events after they are durable at the relay. A Log before the batch asks the agent to go back.
type Receipt struct {
	Log LogHead `json:"log"`
}

// Notice is a word from the relay to the agent. None of them can widen what the site allows.
type Notice struct {
	Kind    string `json:"kind"` // NoticeDrain, NoticeRevoked, NoticeRenew
	RetryMs int64  `json:"retry_ms,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Notices.
const (
	NoticeDrain   = "drain"   // this relay is stopping: open a tunnel elsewhere, finish what runs
	NoticeRevoked = "revoked" // the agent was disabled: stop trying for RetryMs
	NoticeRenew   = "renew"   // renew the certificate now
)

// Remaining gives what is left until the deadline, at least a millisecond; 0 when there is no deadline.
func Remaining(deadline time.Time, ok bool) time.Duration {
	if !ok {
		return 0
	}
	return max(time.Millisecond, time.Until(deadline))
}
