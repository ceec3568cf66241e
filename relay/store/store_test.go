package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), DefaultConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func write(t testing.TB, s *Store, f func(*Tx) error) int64 {
	t.Helper()
	n, err := s.Write(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seed makes two workspaces with a group, an agent, a principal and a connection each.
func seed(t testing.TB, s *Store) {
	t.Helper()
	write(t, s, func(tx *Tx) error {
		b := []byte("sealed")
		var errs []error
		for _, w := range []string{"a", "b"} {
			errs = append(errs,
				tx.InsertWorkspace(Workspace{ID: "ws_" + w, State: "active", Created: 1, Version: 1, NameDigest: []byte(w), KeyWrapped: b, Sealed: b}),
				tx.InsertGroup(Group{ID: "grp_" + w, Workspace: "ws_" + w, Created: 1, Version: 1, NameDigest: b, Sealed: b}),
				tx.InsertAgent(Agent{ID: "agt_" + w, Workspace: "ws_" + w, Group: "grp_" + w, State: "awaiting", Created: 1, Version: 1, Sealed: b}),
				tx.InsertPrincipal(Principal{ID: "usr_" + w, Workspace: "ws_" + w, Kind: "user", State: "active", Version: 1, NameDigest: b, Sealed: b}),
				tx.InsertConnection(Connection{ID: "con_" + w, Workspace: "ws_" + w, Group: "grp_" + w, Version: 1, NameDigest: b, Sealed: b}))
		}
		return errors.Join(errs...)
	})
}

func TestOpenSetsWhatDurabilityNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b#c?d%41")
	s := openAt(t, dir)
	for _, db := range []*sql.DB{s.writer, s.reader} {
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000",
			"secure_delete": "1", "trusted_schema": "0"} {
			var got string
			if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s = %s, want %s: %v", pragma, got, want, err)
			}
		}
	}
	if _, err := s.reader.Exec("DELETE FROM generation"); err == nil {
		t.Error("the reader writes")
	}
	write(t, s, func(*Tx) error { return nil })
	for _, suffix := range []string{"", "-wal", "-shm"} {
		st, err := os.Stat(s.Path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", suffix, st.Mode().Perm())
		}
	}
	if s.Path() != filepath.Join(dir, File) {
		t.Error(s.Path())
	}
}

func TestOpenRefuses(t *testing.T) {
	refused := func(t *testing.T, dir, text string) {
		t.Helper()
		s, err := Open(t.Context(), DefaultConfig(dir))
		if err == nil {
			s.Close()
			t.Fatal("opened")
		}
		if !strings.Contains(err.Error(), text) {
			t.Fatalf("%v, want %q in it", err, text)
		}
	}
	t.Run("Z20 a file that is no database", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, File), bytes.Repeat([]byte("text "), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "not a usable database")
	})
	t.Run("Z20 a damaged file", func(t *testing.T) {
		dir := t.TempDir()
		s, err := Open(t.Context(), DefaultConfig(dir))
		if err != nil {
			t.Fatal(err)
		}
		seed(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, File))
		if err != nil {
			t.Fatal(err)
		}
		for i := 4096 * 3; i < len(b); i += 97 {
			b[i] ^= 0xff
		}
		if err := os.WriteFile(filepath.Join(dir, File), b, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "damaged")
	})
	t.Run("a newer release's schema", func(t *testing.T) {
		dir := t.TempDir()
		s, err := Open(t.Context(), DefaultConfig(dir))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.writer.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)"); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, "newer release")
	})
	t.Run("a file in place of the folder", func(t *testing.T) {
		p := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, p, "open the state")
	})
	t.Run("no limits", func(t *testing.T) {
		if _, err := Open(t.Context(), Config{Dir: t.TempDir()}); err == nil {
			t.Fatal("opened")
		}
	})
}

func TestWriteIsAllOrNothingAndCounts(t *testing.T) {
	s := openAt(t, t.TempDir())
	seed(t, s)
	before, err := s.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	_, err = s.Write(t.Context(), func(tx *Tx) error {
		if err := tx.DeleteAgent("ws_a", "agt_a"); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		_, _ = s.Write(t.Context(), func(tx *Tx) error { _ = tx.DeleteAgent("ws_a", "agt_a"); panic("boom") })
	}()
	if n, _ := s.Generation(t.Context()); n != before {
		t.Fatal("an undone write counts", before, n)
	}
	if err := s.Read(t.Context(), func(tx *Tx) error { _, err := tx.Agent("ws_a", "agt_a"); return err }); err != nil {
		t.Fatal("the agent is gone:", err)
	}
	if n := write(t, s, func(*Tx) error { return nil }); n != before+1 {
		t.Fatal(before, n)
	}
	if err := s.WriteQuiet(t.Context(), func(tx *Tx) error { return tx.SetAuditCursor("agt_a", 1, "h") }); err != nil {
		t.Fatal(err)
	}
	if n, _ := s.Generation(t.Context()); n != before+1 {
		t.Fatal("a quiet write counts")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Write(ctx, func(*Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// Rows refer only to rows of their own workspace.
func TestRowsStayInTheirWorkspace(t *testing.T) {
	s := openAt(t, t.TempDir())
	seed(t, s)
	b := []byte("x")
	for name, f := range map[string]func(*Tx) error{
		"agent": func(tx *Tx) error {
			return tx.InsertAgent(Agent{ID: "agt_x", Workspace: "ws_a", Group: "grp_b", State: "active", Sealed: b})
		},
		"connection": func(tx *Tx) error {
			return tx.InsertConnection(Connection{ID: "con_x", Workspace: "ws_a", Group: "grp_b", NameDigest: b, Sealed: b})
		},
		"join token": func(tx *Tx) error {
			return tx.InsertJoinToken(JoinToken{ID: "jtk_x", Workspace: "ws_a", Group: "grp_b", Digest: b})
		},
		"api token": func(tx *Tx) error {
			return tx.InsertAPIToken(APIToken{ID: "tok_x", Workspace: "ws_a", Principal: "usr_b", Digest: b, Sealed: b})
		},
		"grant": func(tx *Tx) error {
			return tx.InsertGrant(Grant{ID: "gra_x", Workspace: "ws_a", Principal: "usr_b", Tag: b})
		},
		"grant on connection": func(tx *Tx) error {
			return tx.InsertGrant(Grant{ID: "gra_x", Workspace: "ws_a", Principal: "usr_a", Connection: "con_b", Tag: b})
		},
		"no workspace": func(tx *Tx) error {
			return tx.InsertGroup(Group{ID: "grp_x", Workspace: "ws_none", NameDigest: b, Sealed: b})
		},
	} {
		t.Run("P9 "+name, func(t *testing.T) {
			if _, err := s.Write(t.Context(), f); !errors.Is(err, ErrReferenced) {
				t.Fatal(err)
			}
		})
	}
	for name, f := range map[string]func(*Tx) error{
		"update agent": func(tx *Tx) error {
			return tx.UpdateAgent(Agent{ID: "agt_b", Workspace: "ws_a", State: "disabled", Version: 2, Sealed: b})
		},
		"delete agent":      func(tx *Tx) error { return tx.DeleteAgent("ws_a", "agt_b") },
		"delete group":      func(tx *Tx) error { return tx.DeleteGroup("ws_a", "grp_b") },
		"delete connection": func(tx *Tx) error { return tx.DeleteConnection("ws_a", "con_b") },
		"principal":         func(tx *Tx) error { return tx.SetPrincipalState("ws_a", "usr_b", "disabled") },
		"read":              func(tx *Tx) error { _, err := tx.Agent("ws_a", "agt_b"); return err },
	} {
		t.Run("J15 "+name, func(t *testing.T) {
			if _, err := s.Write(t.Context(), f); !errors.Is(err, ErrNotFound) {
				t.Fatal(err)
			}
		})
	}
	t.Run("names are unique within a workspace alone", func(t *testing.T) {
		_, err := s.Write(t.Context(), func(tx *Tx) error {
			return tx.InsertGroup(Group{ID: "grp_x", Workspace: "ws_a", NameDigest: []byte("sealed"), Sealed: b})
		})
		if !errors.Is(err, ErrExists) {
			t.Fatal(err)
		}
	})
	t.Run("a lost update is refused", func(t *testing.T) {
		up := func(tx *Tx) error {
			return tx.UpdateAgent(Agent{ID: "agt_a", Workspace: "ws_a", State: "active", Version: 2, Sealed: b})
		}
		write(t, s, up)
		if _, err := s.Write(t.Context(), up); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	})
}

// The store can have no key within reach.
func TestStoreImportsNoKeys(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		p, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range p.Imports {
			if strings.Contains(i.Path.Value, "fairlead/") || strings.Contains(i.Path.Value, "crypto") {
				t.Errorf("%s imports %s", f, i.Path.Value)
			}
		}
	}
}
