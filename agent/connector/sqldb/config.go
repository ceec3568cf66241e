package sqldb

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy/statement"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

// Adapters.
const (
	PostgreSQL = "postgresql"
	Redshift   = "redshift"
	MySQL      = "mysql" // MariaDB too
	SQLite     = "sqlite"
	SQLServer  = "sqlserver"
	Oracle     = "oracle"
)

// Modes of a profile.
const (
	ModeReadOnly   = "read_only"  // query and schema; the default
	ModeReadWrite  = "read_write" // exec and transaction too
	ModeStatements = "statements" // the statements that Config names, and nothing else
)

// TLS modes. There is no mode that falls back to plaintext, and none that encrypts without knowing the peer.
const (
	TLSVerifyFull = "verify-full" // chain and host name; the default
	TLSVerifyCA   = "verify-ca"   // chain alone
	TLSDisable    = "disable"     // plaintext, said explicitly
)

// Defaults and limits.
const (
	DefaultMaxConns     = 5
	DefaultQueueTimeout = 10 * time.Second
	DefaultTimeout      = 30 * time.Second
	DefaultConnTimeout  = 10 * time.Second

	MaxRowBytes = 16 << 20 // one row, as the database sends it and as it travels
	maxColumns  = 4096
	maxTables   = 10_000 // in a schema answer
	idleTime    = time.Minute
	maxAge      = 5 * time.Minute // of a connection, so that a change of the role's rights is seen
)

// Config is one profile. Nothing of it comes from a caller.
type Config struct {
	Name     string // the profile, for messages: "database.NAME"
	Adapter  string
	Host     string
	Port     int    // 0: the adapter's own
	Database string // Oracle: the service name
	Username string
	Password secret.Bytes

	TLS    string // TLSVerifyFull when ""
	CAFile string // PEM; "" means the system's roots
	Path   string // SQLite: the file, which must exist

	Mode       string // ModeReadOnly when ""
	Statements map[string]Statement

	MaxConns     int           // connections to the target at once; DefaultMaxConns when 0
	QueueTimeout time.Duration // how long a call waits for a connection; DefaultQueueTimeout when 0
	Timeout      time.Duration // of a call whose Decision has none; DefaultTimeout when 0
	ConnTimeout  time.Duration // dial, TLS and sign-in; DefaultConnTimeout when 0

	// Dial opens every connection of a network adapter: it is where the agent checks the address. It is called with Host
	// and Port as they stand here and, to cancel a PostgreSQL query, with the literal address of the connection that the
	// query runs on if the name now leads elsewhere.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Statement is one that the site's own file declares. Callers run it by name.
type Statement struct {
	SQL    string
	Params []string // wire types, in order: see ParamTypes
}

var defaultPort = map[string]int{PostgreSQL: 5432, Redshift: 5439, MySQL: 3306, SQLServer: 1433, Oracle: 1521}

// dialect is the grammar by which the classifier reads the adapter's statements.
func dialect(adapter string) statement.Dialect { return statement.Dialect(adapter) }

// check fills in defaults and refuses what does not fit. Its errors are for the operator.
func (c *Config) check() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("database.%s: %s", c.Name, fmt.Sprintf(format, args...))
	}
	port, network := defaultPort[c.Adapter]
	switch {
	case !network && c.Adapter != SQLite:
		return bad("adapter %q is not one of postgresql, redshift, mysql, sqlite, sqlserver, oracle", c.Adapter)
	case c.Adapter == SQLite && c.Path == "":
		return bad("adapter sqlite wants path")
	case c.Adapter == SQLite && (c.Host != "" || c.Port != 0 || c.Username != "" || !c.Password.IsZero() || c.TLS != "" || c.CAFile != ""):
		return bad("adapter sqlite takes path, and none of host, port, username, password, tls")
	case network && c.Path != "":
		return bad("adapter %s takes host, not path", c.Adapter)
	case network && c.Host == "":
		return bad("host is missing")
	case network && c.Username == "":
		return bad("username is missing")
	case network && c.Database == "" && c.Adapter != MySQL:
		return bad("database is missing")
	case network && c.Dial == nil:
		return bad("no dialer")
	case c.Port < 0 || c.Port > 65535:
		return bad("port %d is not in 1 to 65535", c.Port)
	case c.MaxConns < 0 || c.QueueTimeout < 0 || c.Timeout < 0 || c.ConnTimeout < 0:
		return bad("a limit is negative")
	}
	if c.Port == 0 {
		c.Port = port
	}
	if c.TLS == "" {
		c.TLS = TLSVerifyFull
	}
	if c.TLS != TLSVerifyFull && c.TLS != TLSVerifyCA && c.TLS != TLSDisable {
		return bad("tls %q is not one of verify-full, verify-ca, disable", c.TLS)
	}
	if c.TLS == TLSDisable && c.CAFile != "" {
		return bad("a CA file has no use with tls: disable")
	}
	if c.Mode == "" {
		c.Mode = ModeReadOnly
	}
	if c.Mode != ModeReadOnly && c.Mode != ModeReadWrite && c.Mode != ModeStatements {
		return bad("mode %q is not one of read_only, read_write, statements", c.Mode)
	}
	if c.Mode == ModeStatements && len(c.Statements) == 0 {
		return bad("mode statements wants at least one statement")
	}
	for name, s := range c.Statements {
		if a := statement.Analyze(dialect(c.Adapter), s.SQL); a.Class != statement.ClassRead && a.Class != statement.ClassWrite {
			return bad("statement %s is refused: %s", name, a.Reason)
		}
		for i, p := range s.Params {
			if !validParam(c.Adapter, p) {
				return bad("statement %s: parameter %d has type %q, which is not one of %s", name, i+1, p, paramList(c.Adapter))
			}
		}
	}
	if c.MaxConns == 0 {
		c.MaxConns = DefaultMaxConns
	}
	if c.QueueTimeout == 0 {
		c.QueueTimeout = DefaultQueueTimeout
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.ConnTimeout == 0 {
		c.ConnTimeout = DefaultConnTimeout
	}
	return nil
}

// rule names the profile in errors.
func (c *Config) rule(field string) string { return "database." + c.Name + "." + field }

func (c *Config) fail(code protocol.Code, cause error, format string, args ...any) *protocol.Error {
	e := protocol.Errorf(code, format, args...)
	e.Origin, e.Cause = protocol.OriginAgent, cause
	return e
}
