package directory

import (
	"fmt"

	"github.com/fairleadhq/fairlead/relay/vault"
)

// eventPlace binds sealed audit events to their workspace. Their order and completeness are the log's own chain's to prove.
func eventPlace(workspace string) vault.Place {
	return vault.Place{Workspace: workspace, Table: "audit", Row: "log", Column: "event", Version: 1}
}

// SealEvent seals the body of an audit event of a workspace's id.
func (d *Directory) SealEvent(workspace string, plain []byte) ([]byte, error) {
	b, err := d.vault.Seal(eventPlace(workspace), plain)
	if err != nil {
		return nil, fmt.Errorf("seal an audit event: %w", err)
	}
	return b, nil
}

// OpenEvent opens what SealEvent sealed.
func (d *Directory) OpenEvent(workspace string, sealed []byte) ([]byte, error) {
	b, err := d.vault.Open(eventPlace(workspace), sealed)
	if err != nil {
		return nil, fmt.Errorf("open an audit event: %w", err)
	}
	return b, nil
}
