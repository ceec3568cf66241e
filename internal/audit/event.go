package audit

import "time"

// Kind says what an event is about.
type Kind string

// Kinds. Appending is free; a kind in use is never renamed.
const (
	KindIntent       Kind = "operation.intent"  // allowed, and about to be done
	KindOutcome      Kind = "operation.outcome" // done, or failed: Status and Code say
	KindDenied       Kind = "operation.denied"
	KindExplained    Kind = "operation.explained" // what would be decided was asked; nothing was done
	KindAuditFull    Kind = "audit.full"          // from here on operations were refused
	KindAuditResume  Kind = "audit.resumed"       // and from here on no longer
	KindAuditRead    Kind = "audit.read"
	KindStart        Kind = "process.start"
	KindStop         Kind = "process.stop"
	KindConfig       Kind = "config.applied"
	KindConfigBad    Kind = "config.refused"
	KindConnected    Kind = "tunnel.connected"
	KindLost         Kind = "tunnel.lost"
	KindEnrolled     Kind = "agent.enrolled"
	KindRenewed      Kind = "agent.renewed"
	KindRevoked      Kind = "agent.revoked"
	KindAgentRefused Kind = "agent.refused" // its certificate was shown, and not taken
	KindSignIn       Kind = "principal.sign_in"
	KindRefused      Kind = "principal.refused"
	KindChange       Kind = "resource.changed" // Operation and Target say what
	KindSignOut      Kind = "principal.sign_out"
	KindConfirm      Kind = "principal.confirmed" // proved again that it is there
	KindPassword     Kind = "principal.password"  // changed, or set by a one-time code
	KindFactor       Kind = "principal.factor"    // of the second factor: begun, proven, removed, recovery codes made; of passkeys; of the own e-mail address
	KindSessionEnd   Kind = "session.ended"
	KindHandOver     Kind = "session.handed_over" // a code was given by which a program gets a session
	KindInternal     Kind = "internal_error"
)

// Kinds are all kinds that this version knows.
var Kinds = []Kind{KindIntent, KindOutcome, KindDenied, KindExplained, KindAuditFull, KindAuditResume, KindAuditRead, KindStart, KindStop, KindConfig, KindConfigBad,
	KindConnected, KindLost, KindEnrolled, KindRenewed, KindRevoked, KindSignIn, KindRefused, KindChange, KindInternal,
	KindSignOut, KindAgentRefused, KindConfirm, KindPassword, KindFactor, KindSessionEnd, KindHandOver}

// Event is one fact. The class of a field decides what becomes of it: public passes (masked by detectors, escaped, cut), sensitive
// becomes a keyed token, secret is dropped, and a field without a class counts as secret.
//
// Whoever records it sets ID, Time, Source and Workspace; what a caller says of those goes to Claimed.
type Event struct {
	ID        string    `json:"id" class:"public"` // evt_…
	Time      time.Time `json:"time" class:"public"`
	Kind      Kind      `json:"kind" class:"public"`
	Source    string    `json:"source,omitempty" class:"public"` // the agent or relay that records
	Workspace string    `json:"workspace,omitempty" class:"public"`
	RequestID string    `json:"request_id,omitempty" class:"public"`

	Principal     string `json:"principal,omitempty" class:"public"` // id
	PrincipalName string `json:"principal_name,omitempty" class:"sensitive"`
	SourceAddress string `json:"source_address,omitempty" class:"public"` // auditors need it

	Agent          string `json:"agent,omitempty" class:"public"`
	Group          string `json:"group,omitempty" class:"public"`
	Connection     string `json:"connection,omitempty" class:"public"` // id
	ConnectionName string `json:"connection_name,omitempty" class:"sensitive"`
	Profile        string `json:"profile,omitempty" class:"public"`

	Operation string `json:"operation,omitempty" class:"public"`
	Target    string `json:"target,omitempty" class:"public"`    // path, table or host and port
	Statement string `json:"statement,omitempty" class:"public"` // fingerprint, without literals

	Decision string `json:"decision,omitempty" class:"public"` // allow or deny
	Rule     string `json:"rule,omitempty" class:"public"`
	Origin   string `json:"origin,omitempty" class:"public"`
	Reason   string `json:"reason,omitempty" class:"public"` // safe to show
	Code     string `json:"code,omitempty" class:"public"`
	Status   string `json:"status,omitempty" class:"public"` // done, failed, canceled …

	Rows       int64 `json:"rows,omitempty" class:"public"`
	Bytes      int64 `json:"bytes,omitempty" class:"public"`    // towards the caller
	BytesIn    int64 `json:"bytes_in,omitempty" class:"public"` // towards the target
	DurationMs int64 `json:"duration_ms,omitempty" class:"public"`
	Truncated  bool  `json:"truncated,omitempty" class:"public"`

	Version string `json:"version,omitempty" class:"public"` // of the program

	// Detail holds what only some kinds have. Keys that DetailClass does not know are dropped and counted.
	Detail map[string]string `json:"detail,omitempty" class:"public"`
	// Claimed holds what the other side said and nobody proved: the principal that a relay names to an agent. Same keys as
	// Detail.
	Claimed map[string]string `json:"claimed,omitempty" class:"public"`
}

// DetailClass gives the class of a key of Event.Detail and Event.Claimed: "public", "sensitive", or "" for a key that is not
// declared. To use a new key, declare it here.
func DetailClass(key string) string {
	switch key {
	case "action", "actions", "adapter", "address", "agent", "agent_version", "algorithm", "before", "certificate", "config_digest",
		"connection", "connections", "count", "decision", "dialect", "digest", "environment", "environments", "etag", "expires_at", "folder",
		"from", "from_seq", "grants", "group", "hash", "host", "id", "instance", "key", "kind", "limit", "method", "mode", "new",
		"not_after", "notice", "offset", "old", "operation", "os", "passkey", "path", "pattern", "peer", "port", "prefix", "prefixes",
		"principal", "principals", "profile", "project", "projects", "query_rows", "range", "reason", "refused", "region", "relay",
		"release", "request_id", "resource", "role", "roles", "seq", "serial", "settings", "source_address", "sqlstate", "state",
		"statement", "status", "status_code", "streams", "table", "tables", "team", "time", "to", "token_id", "transport", "tunnel",
		"user_agent", "verb", "version", "workspace":
		return "public"
	case "account", "email", "hostname", "name", "principal_name", "subject", "user", "username":
		return "sensitive"
	}
	return ""
}
