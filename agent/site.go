package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/connector/folder"
	"github.com/fairleadhq/fairlead/agent/connector/httpapi"
	"github.com/fairleadhq/fairlead/agent/connector/sqldb"
	"github.com/fairleadhq/fairlead/agent/connector/tcp"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
)

// site is one generation of the configuration: the policy and the connectors built from the same file. A reload builds a
// new one whole, swaps it in, and the old one closes after its last trip.
type site struct {
	policy *policy.Policy
	conns  map[target]connector.Connector

	mu   sync.Mutex // guards refs
	refs int        // trips that run on it, and one for being current; at 0 it closes
}

// target names a connector: a profile, or NoProfile for dials by the allow list.
type target struct {
	kind    protocol.Kind
	profile string
}

// newSite builds policy and connectors. Nothing is dialled. A profile that cannot be set up is an error of the whole: a
// configuration is taken as a whole or not at all.
func newSite(c *Config, dataDir string, log *slog.Logger) (*site, error) {
	if err := c.CheckDataDir(dataDir); err != nil {
		return nil, err
	}
	p, err := c.Policy()
	if err != nil {
		return nil, err
	}
	s := &site{policy: p, conns: map[target]connector.Connector{}, refs: 1}
	if err := s.build(c, dataDir, log); err != nil {
		return nil, errors.Join(err, s.closeAll())
	}
	return s, nil
}

func (s *site) build(c *Config, dataDir string, log *slog.Logger) error {
	for name, d := range c.Database {
		db, err := sqldb.New(sqldb.Config{Name: name, Adapter: d.Adapter, Host: d.Host, Port: int(d.Port), Database: d.Database, Username: d.Username,
			Password: d.Secret, TLS: d.TLS, CAFile: d.CAFile, Path: d.Path, Mode: d.Allow.Mode, Statements: statements(d.Statements), MaxConns: d.MaxConns,
			QueueTimeout: time.Duration(d.QueueTimeout), ConnTimeout: time.Duration(d.ConnTimeout),
			Dial: tcp.ForProfile(s.policy, protocol.KindDatabase, name).DialContext}, log)
		if err != nil {
			return err
		}
		s.conns[target{protocol.KindDatabase, name}] = db
		if d.Allow.Dial && d.Host != "" {
			if err := s.raw(target{rawDatabase, name}, tcp.Config{Name: name, Host: d.Host, Port: d.Port, MaxConns: int(d.Limits.Concurrent), Dialer: tcp.ForProfile(s.policy, protocol.KindDatabase, name)}, log); err != nil {
				return err
			}
		}
	}
	for name, f := range c.Files {
		readOnly := true
		for _, v := range f.Allow {
			readOnly = readOnly && (v == "list" || v == "stat" || v == "read")
		}
		dir, err := folder.New(folder.Config{Name: name, Base: f.Base, Own: append([]string{c.Path, dataDir}, c.SecretFiles()...), ReadOnly: readOnly,
			MaxSize: int64(f.MaxSize), Hardlinks: folder.Hardlinks(f.RejectHardlinks), ReserveBytes: int64(f.ReserveBytes), ReservePercent: float64(f.ReservePercent),
			UploadKeep: time.Duration(f.UploadKeep)}, log)
		if err != nil {
			return err
		}
		s.conns[target{protocol.KindFiles, name}] = dir
	}
	for name, h := range c.HTTP {
		cas, err := certPool(h.CAFile)
		if err != nil {
			return err
		}
		cfg := httpapi.Config{Name: name, BaseURL: h.BaseURL, Dial: tcp.ForProfile(s.policy, protocol.KindHTTP, name).DialContext, CAs: cas, AnyName: h.TLS == "verify-ca",
			HeaderTimeout: time.Duration(h.Timeout), MaxAnswerBytes: int64(h.MaxBytes), MaxBodyBytes: int64(h.MaxSize)}
		if h.Redirects == "follow" {
			cfg.Redirects, cfg.Decide, cfg.ElsewhereDial = true, s.policy.Decide, tcp.ForAllowList(s.policy).DialContext
		}
		web, err := httpapi.New(cfg, log)
		if err != nil {
			return err
		}
		s.conns[target{protocol.KindHTTP, name}] = web
	}
	for name, t := range c.TCP {
		if err := s.raw(target{protocol.KindTCP, name}, tcp.Config{Name: name, Host: t.Host, Port: t.Port, MaxConns: int(t.Limits.Concurrent), Dialer: tcp.ForProfile(s.policy, protocol.KindTCP, name)}, log); err != nil {
			return err
		}
	}
	return s.raw(target{protocol.KindTCP, protocol.NoProfile}, tcp.Config{Name: protocol.NoProfile, Dialer: tcp.ForAllowList(s.policy)}, log)
}

func (s *site) raw(t target, c tcp.Config, log *slog.Logger) error {
	r, err := tcp.New(c, log)
	if err != nil {
		return err
	}
	s.conns[t] = r
	return nil
}

// certPool reads CA certificates; nil, which means the system's, for no file.
func certPool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	b, err := config.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("no certificate in %s", file)
	}
	return pool, nil
}

// connector finds who does the request; nil when the profile has none.
func (s *site) connector(r *protocol.Request) connector.Connector {
	if r.Operation == protocol.OpDial && r.Kind == protocol.KindDatabase {
		return s.conns[target{rawDatabase, r.Profile}]
	}
	return s.conns[target{r.Kind, r.Profile}]
}

// rawDatabase is the kind under which a database profile's raw dial stands in the table.
const rawDatabase protocol.Kind = "database:dial"

// retain counts a trip in, unless the site has closed already.
func (s *site) retain() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs == 0 {
		return false
	}
	s.refs++
	return true
}

func (s *site) release() {
	s.mu.Lock()
	s.refs--
	last := s.refs == 0
	s.mu.Unlock()
	if last {
		_ = s.closeAll() // idle connections; nothing is lost with them
	}
}

func (s *site) closeAll() error {
	var errs []error
	for _, c := range s.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

func statements(in map[string]StatementConfig) map[string]sqldb.Statement {
	out := make(map[string]sqldb.Statement, len(in))
	for name, st := range in {
		out[name] = sqldb.Statement{SQL: st.SQL, Params: st.Params}
	}
	return out
}
