package e2e_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
)

// TestNoOperationWhenTheRelayCannotRecord fills the relay's audit log to its cap: from then on nothing is done and nothing
// is released, and what was done before stands in the log.
func TestNoOperationWhenTheRelayCannotRecord(t *testing.T) {
	w := shop(t, testenv.Options{RelayAudit: 256 << 10})
	w.Connection("papers")
	var done []string
	var refused error
	for i := range 2000 {
		name := fmt.Sprintf("f%04d.txt", i)
		if _, err := w.Client.Put(ctx, "papers", name, strings.NewReader("x"), 1, client.PutOptions{}); err != nil {
			refused = err
			break
		}
		done = append(done, name)
	}
	if c, o := code(refused); c != protocol.CodeAuditUnavailable || o != protocol.OriginRelay {
		t.Fatalf("after %d files: %v", len(done), refused)
	}
	entries, err := os.ReadDir(filepath.Join(w.Dir, "papers"))
	if err != nil {
		t.Fatal(err)
	}
	// The last one may have reached the site before its record was refused; it was not reported as done.
	if len(entries) > len(done)+1 {
		t.Fatalf("%d files for %d that were reported", len(entries), len(done))
	}
	for range 20 {
		if _, err := w.Client.Stat(ctx, "papers", "f0000.txt", ""); err == nil {
			t.Fatal("an answer was released without a record")
		}
	}
	after, err := os.ReadDir(filepath.Join(w.Dir, "papers"))
	if err != nil || len(after) != len(entries) {
		t.Fatalf("%d files became %d, %v", len(entries), len(after), err)
	}
	// Changes by admins are acts, too.
	if _, err := w.Client.CreateGroup(ctx, client.NewGroup{Name: "late"}); err == nil {
		t.Fatal("a change without a record")
	} else if c, _ := code(err); c != protocol.CodeAuditUnavailable {
		t.Fatalf("got %v", err)
	}
}

// TestEmptiedAuditFolderOfAnAgentIsFound: an agent whose audit log was removed starts a new one at 1. The relay must not
// take the new records for those that it holds under the same numbers.
func TestEmptiedAuditFolderOfAnAgentIsFound(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	if err := count(t, w.Client); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the agent's records are at the relay", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err == nil && e.Source == w.Agent.ID() && e.Kind == "operation.outcome" {
				return true
			}
		}
		return false
	})
	w.StopAgent()
	if err := os.RemoveAll(filepath.Join(w.Dir, "agent", "audit")); err != nil {
		t.Fatal(err)
	}
	w.StartAgent()
	testenv.Eventually(t, "the fork stands in the record", func() bool {
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{Kind: "agent"}) {
			if err == nil && e.Kind == "agent.log_forked" && e.Agent == w.Agent.ID() {
				return true
			}
		}
		return false
	})
}

// TestRestoredRelayGetsTheAgentsRecordsAgain: a relay that was put back to a copy asks the agent for what it has lost, and
// nobody has to lay hands on the agent.
func TestRestoredRelayGetsTheAgentsRecordsAgain(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	records := func() (seqs map[string]bool) {
		seqs = map[string]bool{}
		for e, err := range w.Client.AuditEvents(ctx, client.AuditQuery{}) {
			if err == nil && e.Source == w.Agent.ID() {
				if seqs[e.ID] {
					t.Errorf("event %s stands twice", e.ID)
				}
				seqs[e.ID] = true
			}
		}
		return seqs
	}
	ask := func(n int) {
		t.Helper()
		for range n {
			if err := count(t, w.Client); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask(1)
	testenv.Eventually(t, "the first records are at the relay", func() bool { return len(records()) >= 2 })
	w.StopRelay()
	live, copied := filepath.Join(w.Dir, "relay"), filepath.Join(w.Dir, "relay.copy")
	if err := os.CopyFS(copied, os.DirFS(live)); err != nil {
		t.Fatal(err)
	}
	w.RestartRelay()
	testenv.Eventually(t, "the agent is back", func() bool { return count(t, w.Client) == nil })
	ask(5)
	testenv.Eventually(t, "all records are at the relay", func() bool { return len(records()) >= 14 })
	want := records()

	w.StopRelay()
	if err := os.RemoveAll(live); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copied, live); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kek.key", "relay.yaml"} { // os.CopyFS gives files its own modes
		if err := os.Chmod(filepath.Join(live, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(live, 0o700); err != nil {
		t.Fatal(err)
	}
	w.RestartRelay()
	testenv.Eventually(t, "the agent is back at the restored relay", func() bool { return count(t, w.Client) == nil })
	testenv.Eventually(t, "the restored relay holds every record again", func() bool {
		have := records()
		for id := range want {
			if !have[id] {
				return false
			}
		}
		return len(have) > len(want)
	})
}

// TestLockedOutOperatorGetsBackIn: the allowlist no longer holds anybody's address; the relay's own machine can replace it.
func TestLockedOutOperatorGetsBackIn(t *testing.T) {
	w := shop(t, testenv.Options{})
	if _, err := w.Client.SetAllowlist(ctx, client.SetAllowlist{Prefixes: []string{"203.0.113.0/24"}, Confirm: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.Whoami(ctx); err == nil {
		t.Fatal("not locked out")
	}
	cfg, err := relay.LoadConfig(filepath.Join(w.Dir, "relay", "relay.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := relay.SetAllowlist(ctx, cfg, "default", []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "the running relay takes the list", func() bool { _, err := w.Client.Whoami(ctx); return err == nil })
}
