package directory_test

import (
	"errors"
	"testing"

	"github.com/fairleadhq/fairlead/relay/vault"
)

func TestEventsOpenInTheirWorkspaceAlone(t *testing.T) {
	d, in := start(t)
	other, err := d.CreateWorkspace(t.Context(), "other")
	must(t, err)
	sealed, err := d.SealEvent(in.Workspace, []byte("event"))
	must(t, err)
	if got, err := d.OpenEvent(in.Workspace, sealed); err != nil || string(got) != "event" {
		t.Fatal(err)
	}
	if _, err := d.OpenEvent(other.ID, sealed); !errors.Is(err, vault.ErrOpen) {
		t.Fatal("P9 another workspace opens it:", err)
	}
	must(t, d.DeleteWorkspace(t.Context(), "other"))
	if _, err := d.SealEvent(other.ID, nil); !errors.Is(err, vault.ErrNoKey) {
		t.Fatal("a forgotten workspace seals:", err)
	}
}
