package sqldb

import (
	"strings"
	"testing"

	"github.com/microsoft/go-mssqldb/msdsn"

	"github.com/fairleadhq/fairlead/internal/secret"
)

func TestConfigIsChecked(t *testing.T) {
	good := Config{Name: "x", Adapter: PostgreSQL, Host: "h", Database: "d", Username: "u", Dial: dial}
	for want, change := range map[string]func(c *Config){
		"adapter": func(c *Config) { c.Adapter = "db2" }, "host is missing": func(c *Config) { c.Host = "" }, "database is missing": func(c *Config) { c.Database = "" },
		"username is missing": func(c *Config) { c.Username = "" }, "no dialer": func(c *Config) { c.Dial = nil }, "port": func(c *Config) { c.Port = 70000 },
		"tls": func(c *Config) { c.TLS = "prefer" }, "CA file": func(c *Config) { c.CAFile = "/nonexistent/ca.pem" }, "no use": func(c *Config) { c.TLS, c.CAFile = TLSDisable, "x" },
		"mode": func(c *Config) { c.Mode = "rw" }, "at least one statement": func(c *Config) { c.Mode = ModeStatements }, "takes host": func(c *Config) { c.Path = "/x" },
		"negative":               func(c *Config) { c.MaxConns = -1 },
		"statement a is refused": func(c *Config) { c.Statements = map[string]Statement{"a": {SQL: "copy x to program 'id'"}} },
		"has type": func(c *Config) {
			c.Statements = map[string]Statement{"a": {SQL: "select $1", Params: []string{"blurb"}}}
		},
		"adapter sqlite wants": func(c *Config) { *c = Config{Adapter: SQLite} }, "none of host": func(c *Config) { *c = Config{Adapter: SQLite, Path: "x", Host: "h"} },
		"other than sys": func(c *Config) { c.Adapter, c.Username = Oracle, "SYS" },
	} {
		c := good
		change(&c)
		if _, err := New(c, quiet()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := New(good, quiet()); err != nil {
		t.Error(err)
	}
}

// There is no SQL Server here: what can be tried is what the driver is told.
func TestSQLServerConfiguration(t *testing.T) {
	cfg := Config{Name: "x", Adapter: SQLServer, Host: "h", Database: "d;encrypt=disable", Username: "u", Password: secret.FromString("p;trustservercertificate=true"), Dial: dial}
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	c, err := sqlserverConfig(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	if c.Encryption != msdsn.EncryptionRequired || c.TrustServerCertificate || c.TLSConfig == nil || c.TLSConfig.InsecureSkipVerify || c.TLSConfig.ServerName != "h" ||
		c.Port != 1433 || c.Database != cfg.Database || c.Password != cfg.Password.ExposeString() || !c.ReadOnlyIntent || c.Instance != "" || c.FailOverPartner != "" {
		t.Errorf("%+v", c)
	}
	cfg.TLS = TLSDisable
	if c, err := sqlserverConfig(&cfg); err != nil || c.Encryption != msdsn.EncryptionDisabled {
		t.Errorf("%+v %v", c, err)
	}
}

func TestSQLServerAndOracleValues(t *testing.T) {
	for _, c := range []struct {
		f    flavor
		col  genericColumn
		v    any
		want string
	}{
		{sqlserverFlavor{}, genericColumn{kind: sqlserverKind("UNIQUEIDENTIFIER")}, []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}, `"00112233-4455-6677-8899-aabbccddeeff"`},
		{sqlserverFlavor{}, genericColumn{kind: sqlserverKind("DECIMAL")}, []byte("1.10"), `"1.10"`},
		{sqlserverFlavor{}, genericColumn{kind: sqlserverKind("REAL"), database: "REAL"}, float64(float32(0.1)), "0.1"},
		{sqlserverFlavor{}, genericColumn{kind: sqlserverKind("BIT")}, true, "true"},
		{sqlserverFlavor{}, genericColumn{kind: sqlserverKind("VARBINARY")}, []byte{0, 255}, `"AP8="`},
		{oracleFlavor{}, genericColumn{kind: oracleKind("NUMBER")}, "12345678901234567890123456789012345678", `"12345678901234567890123456789012345678"`},
		{oracleFlavor{}, genericColumn{kind: oracleKind("RAW")}, []byte{1}, `"AQ=="`},
	} {
		if got := string(c.f.value(nil, &c.col, c.v)); got != c.want {
			t.Errorf("%v: %s, want %s", c.v, got, c.want)
		}
	}
}
