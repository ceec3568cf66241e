package directory_test

import (
	"fmt"
	"testing"

	"github.com/fairleadhq/fairlead/relay/directory"
)

func BenchmarkSnapshotRebuild(b *testing.B) {
	d, _ := start(b)
	for i := range 1000 {
		_, err := d.CreateConnection(b.Context(), "default", "default", profile(fmt.Sprint("c", i)))
		must(b, err)
	}
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		_, err := d.CreateGroup(b.Context(), "default", fmt.Sprint("g", i))
		must(b, err)
	}
}

// What one change costs a relay that many agents belong to.
func BenchmarkChangeBeside5000Agents(b *testing.B) {
	d, in := start(b)
	w, err := d.Snapshot().Workspace(in.Workspace)
	must(b, err)
	g, err := w.Group("default")
	must(b, err)
	must(b, directory.FillAgents(b.Context(), d, w.ID, g.ID, 5000))
	w, err = d.Snapshot().Workspace(w.ID)
	must(b, err)
	b.Run("connection", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			_, err := d.CreateConnection(b.Context(), "default", "default", profile(fmt.Sprint("c", i)))
			must(b, err)
			must(b, d.DeleteConnection(b.Context(), "default", fmt.Sprint("c", i)))
		}
	})
	b.Run("agent", func(b *testing.B) {
		id := w.Agents[17].ID
		for b.Loop() {
			must(b, d.DisableAgent(b.Context(), "default", id))
			must(b, d.EnableAgent(b.Context(), "default", id))
		}
	})
}
