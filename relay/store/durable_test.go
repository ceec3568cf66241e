package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestJ13DeletingLeavesNothing(t *testing.T) {
	s := openAt(t, t.TempDir())
	seed(t, s)
	b := []byte("x")
	write(t, s, func(tx *Tx) error {
		return errors.Join(
			tx.InsertCertificate(Certificate{Agent: "agt_a", Serial: "1", SPKI: b}), tx.SetAuditCursor("agt_a", 4, "h"),
			tx.InsertJoinToken(JoinToken{ID: "jtk_a", Workspace: "ws_a", Group: "grp_a", Digest: b}),
			tx.InsertAPIToken(APIToken{ID: "tok_a", Workspace: "ws_a", Principal: "usr_a", Digest: b, Sealed: b}),
			tx.InsertGrant(Grant{ID: "gra_a", Workspace: "ws_a", Principal: "usr_a", Connection: "con_a", Tag: b}),
			tx.ReplaceAllowlist("ws_a", []AllowEntry{{ID: "alw_a", Version: 1, Sealed: b}}),
			tx.PutSetting(Setting{Scope: "ws_a", Name: "n", Version: 1, Sealed: b}),
			tx.PutSetting(Setting{Name: "workspace-ca-ws_a", Version: 1, Sealed: b}),
			tx.PutSetting(Setting{Name: "workspace-ca-ws_b", Version: 1, Sealed: b}),
			tx.PutAuthority(Authority{Scope: "ws_a", Version: 1, Chain: b, KeySealed: b}))
	})
	write(t, s, func(tx *Tx) error { return tx.DeleteWorkspace("ws_a") })
	if err := s.Read(t.Context(), func(tx *Tx) error { _, err := tx.Setting("", "workspace-ca-ws_b"); return err }); err != nil {
		t.Error("another workspace's is gone:", err)
	}
	rows, err := s.reader.Query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'goose%'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var n string
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, n)
	}
	if len(tables) < 15 {
		t.Fatal("the scan is void", tables)
	}
	for _, n := range tables {
		cols, err := s.reader.Query("SELECT * FROM " + n)
		if err != nil {
			t.Fatal(err)
		}
		names, _ := cols.Columns()
		for cols.Next() {
			vals := make([]any, len(names))
			for i := range vals {
				vals[i] = new(any)
			}
			if err := cols.Scan(vals...); err != nil {
				t.Fatal(err)
			}
			for i, v := range vals {
				if text := fmt.Sprintf("%s", *v.(*any)); strings.HasSuffix(text, "_a") {
					t.Errorf("%s.%s still holds %s", n, names[i], text)
				}
			}
		}
		cols.Close()
	}
}

func TestJoinTokenIsConsumedOnce(t *testing.T) {
	dir := t.TempDir()
	stores := []*Store{openAt(t, dir), openAt(t, dir)} // two processes on one database
	seed(t, stores[0])
	write(t, stores[0], func(tx *Tx) error {
		return tx.InsertJoinToken(JoinToken{ID: "jtk_1", Workspace: "ws_a", Group: "grp_a", Digest: []byte("d"), Expires: 1000})
	})
	t.Run("D10 expired", func(t *testing.T) {
		_, err := stores[0].Write(t.Context(), func(tx *Tx) error { _, err := tx.ConsumeJoinToken([]byte("d"), "agt", 1000); return err })
		if !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	})
	t.Run("D10 32 at once", func(t *testing.T) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var winners []string
		begin := make(chan struct{})
		for i := range 32 {
			wg.Go(func() {
				<-begin
				id := fmt.Sprint("agt_", i)
				_, err := stores[i%2].Write(context.Background(), func(tx *Tx) error {
					_, err := tx.ConsumeJoinToken([]byte("d"), id, 999)
					return err
				})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					winners = append(winners, id)
				case !errors.Is(err, ErrNotFound):
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		if len(winners) != 1 {
			t.Fatal("winners:", winners)
		}
		if err := stores[1].Read(t.Context(), func(tx *Tx) error {
			v, err := tx.JoinTokenByDigest([]byte("d"))
			if v.UsedBy != winners[0] || v.UsedAt != 999 {
				t.Errorf("%+v, won by %s", v, winners[0])
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}

func TestZ20AnotherProcessHoldsTheLock(t *testing.T) {
	dir := t.TempDir()
	c := DefaultConfig(dir)
	c.BusyTimeout = 50 * time.Millisecond
	s, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	other := openAt(t, dir)
	held, release := make(chan struct{}), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := other.Write(context.Background(), func(*Tx) error {
			close(held)
			<-release
			return nil
		})
		done <- err
	}()
	<-held
	if _, err := s.Write(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrUnavailable) {
		t.Error("while locked:", err)
	}
	if _, err := s.Generation(t.Context()); err != nil {
		t.Error("reading waits for the writer:", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Error("after it is free:", err)
	}
}

func TestZ20AFullDiskRefusesAndRecovers(t *testing.T) {
	s := openAt(t, t.TempDir())
	seed(t, s)
	var pages int
	if err := s.writer.QueryRow("PRAGMA page_count").Scan(&pages); err != nil {
		t.Fatal(err)
	}
	limit := func(n int) {
		if _, err := s.writer.Exec(fmt.Sprint("PRAGMA max_page_count = ", n)); err != nil {
			t.Fatal(err)
		}
	}
	put := func() error {
		_, err := s.Write(t.Context(), func(tx *Tx) error { return tx.PutSetting(Setting{Name: "n", Version: 1, Sealed: make([]byte, 1<<20)}) })
		return err
	}
	before, _ := s.Generation(t.Context())
	limit(pages)
	if err := put(); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if n, err := s.Generation(t.Context()); err != nil || n != before {
		t.Fatal("half a write", n, err)
	}
	limit(1 << 20)
	if err := put(); err != nil {
		t.Fatal("it does not recover:", err)
	}
}

func TestAcknowledgedWritesSurviveAndTheLogIsFoldedIn(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), DefaultConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	seed(t, s)
	for i := range 200 {
		write(t, s, func(tx *Tx) error {
			return tx.PutSetting(Setting{Name: "n", Version: int64(i + 1), Sealed: make([]byte, 8192)})
		})
	}
	// What is on the disk now is what a crash leaves: copy it and open the copy.
	crash := t.TempDir()
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(s.Path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(crash, File+suffix), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := openAt(t, crash).Read(t.Context(), func(tx *Tx) error {
		v, err := tx.Setting("", "n")
		if v.Version != 200 {
			t.Errorf("version %d came through", v.Version)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(s.Path() + "-wal"); err != nil || st.Size() > 16<<20 {
		t.Errorf("Z20 the log grew to %d: %v", st.Size(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(filepath.Join(dir, File+"-wal")); err == nil && st.Size() > 0 {
		t.Errorf("%d bytes of log are left after Close", st.Size())
	}
}

func TestAuditCursorNeverMovesBack(t *testing.T) {
	s := openAt(t, t.TempDir())
	seed(t, s)
	set := func(agent string, seq uint64) error {
		return s.WriteQuiet(t.Context(), func(tx *Tx) error { return tx.SetAuditCursor(agent, seq, fmt.Sprint(seq)) })
	}
	for _, c := range []struct {
		agent string
		seq   uint64
		want  error
	}{{"agt_a", 5, nil}, {"agt_a", 5, ErrNotFound}, {"agt_a", 4, ErrNotFound}, {"agt_a", 9, nil}, {"agt_none", 1, ErrNotFound}} {
		if err := set(c.agent, c.seq); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if err := s.Read(t.Context(), func(tx *Tx) error {
		seq, hash, err := tx.AuditCursor("agt_a")
		seq2, _, err2 := tx.AuditCursor("agt_b")
		if seq != 9 || hash != "9" || seq2 != 0 {
			t.Error(seq, hash, seq2)
		}
		return errors.Join(err, err2)
	}); err != nil {
		t.Fatal(err)
	}
}
