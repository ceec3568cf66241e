package directory

import (
	"encoding/base64"

	"github.com/fairleadhq/fairlead/relay/vault"
)

func cursorPlace(workspace, list string) vault.Place {
	return vault.Place{Workspace: workspace, Table: "cursors", Row: list, Column: "after", Version: 1}
}

// SealCursor makes a cursor of a place in a list: sealed, for a place holds names, and a cursor stands in URLs and in the logs on
// their way. It counts for this list of this workspace (id) alone, and for as long as the workspace's key does.
func (d *Directory) SealCursor(workspace, list, place string) (string, error) {
	b, err := d.vault.Seal(cursorPlace(workspace, list), []byte(place))
	if err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// OpenCursor gives the place that SealCursor took. What is no cursor of this list is refused (invalid).
func (d *Directory) OpenCursor(workspace, list, cursor string) (string, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err == nil {
		b, err = d.vault.Open(cursorPlace(workspace, list), b)
	}
	if err != nil {
		return "", invalid("parameter cursor: not one of this list", "take it from the answer before, as it stands; leave it out to begin anew")
	}
	return string(b), nil
}
