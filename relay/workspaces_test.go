package relay

import (
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// A workspace that another process makes beside a relay that runs has its log and its CA, and takes both along when it goes.
func TestWorkspaceMadeBesideARunningRelay(t *testing.T) {
	r, _ := relayAndSite(t)
	ctx := t.Context()
	begun := r.beginLogs(nil)
	w, err := r.dir.CreateWorkspace(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.makeAuthorities(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.auth.workspace(ctx, w.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is new
		begun = r.beginLogs(begun)
	}
	if next, err := r.record(audit.Event{Kind: audit.KindLost, Workspace: w.ID}); err != nil || next.Seq() != 2 || len(begun) != 2 {
		t.Fatal("its log did not begin once:", next, begun, err)
	}
	if err := r.dir.DeleteWorkspace(ctx, w.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.makeAuthorities(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.dir.Setting(ctx, "", workspaceSetting+w.ID); client.CodeOf(err) != protocol.CodeNotFound {
		t.Error("J13 the CA of a workspace that was destroyed is kept:", err)
	}
	if r.auth.cas[w.ID] != nil {
		t.Error("J13 it is in memory")
	}
	if begun = r.beginLogs(begun); len(begun) != 1 {
		t.Error(begun)
	}
	if _, err := r.record(audit.Event{Kind: audit.KindLost, Workspace: w.ID}); err == nil {
		t.Error("J13 its log takes events")
	}
}
