package relay

import (
	"context"
	"errors"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// FoundWorkspace makes a workspace with its owner, for who holds the relay's machine and key file, and gives the owner's one-time code
// (zero for a person who is there already). A relay that serves the same state takes it within a second or two, and makes its CA.
func FoundWorkspace(ctx context.Context, c Config, n directory.NewWorkspace) (*directory.Workspace, secret.Bytes, error) {
	dir, err := openOnHost(ctx, c)
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	w, code, err := dir.FoundWorkspace(ctx, n)
	if err = errors.Join(err, dir.Close()); err != nil {
		return nil, secret.Bytes{}, err
	}
	return w, code, nil
}

// Workspaces lists the workspaces in the order of names, for who holds the relay's machine and key file.
func Workspaces(ctx context.Context, c Config) ([]*directory.Workspace, error) {
	dir, err := openOnHost(ctx, c)
	if err != nil {
		return nil, err
	}
	return dir.Snapshot().Workspaces(), dir.Close()
}

// openOnHost opens the state for a command beside a relay that may be serving it.
func openOnHost(ctx context.Context, c Config) (*directory.Directory, error) {
	dc := directoryConfig(c, nil)
	dc.Logger = directory.DefaultConfig(c.Data).Logger
	return directory.Open(ctx, dc)
}

// beginLogs records the start in the log of each workspace that has not begun, and gives those that have.
func (r *Relay) beginLogs(begun map[string]bool) map[string]bool {
	s := r.dir.Snapshot()
	if s.Stale { // it has none now, and the same ones again later
		return begun
	}
	next := map[string]bool{}
	for _, w := range s.Workspaces() {
		if next[w.ID] = true; begun[w.ID] {
			continue
		}
		if _, err := r.record(audit.Event{Kind: audit.KindStart, Workspace: w.ID, Version: r.opt.Version}); err != nil {
			r.opt.Logger.Error("the audit log takes no events; operations will be refused until it does", "workspace", w.ID, "error", err)
		}
	}
	return next
}

// keepLogs begins the logs of workspaces that another process makes while the relay runs.
func (r *Relay) keepLogs(ctx context.Context, begun map[string]bool) {
	for {
		changed := r.dir.Changed()
		begun = r.beginLogs(begun)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
