package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// codeFile is where a one-time code goes; without a file it is printed.
type codeFile struct{ f *os.File }

// openCode makes the file of --code-file, for its owner alone, before there is a code: one that is there already is refused, for it may
// be open to others.
func openCode(path string) (codeFile, error) {
	if path == "" {
		return codeFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return codeFile{}, protocol.Errorf(protocol.CodeConflict, "--code-file %s is there already; it is not replaced", path)
	}
	if err != nil {
		return codeFile{}, fmt.Errorf("make the file for the code: %w", err)
	}
	return codeFile{f}, nil
}

// drop takes the file away when there is no code for it.
func (c codeFile) drop() error {
	if c.f == nil {
		return nil
	}
	return errors.Join(c.f.Close(), os.Remove(c.f.Name()))
}

// handOver says whose code it is, and how it is shown.
type handOver struct {
	Address, Workspace, User string
	Life                     time.Duration
	Link                     bool // as a link to the account page
}

// give writes or prints the code, this once, and says what it is for.
func (h handOver) give(t *cli.Term, out codeFile, code secret.Bytes) error {
	if h.Link {
		link, err := client.FirstLink(h.Address, h.Workspace, h.User, code.ExposeString())
		if err != nil {
			return errors.Join(err, out.drop())
		}
		code = secret.FromString(link)
	}
	if out.f == nil {
		t.Printf("%s\n", code.ExposeString())
	} else {
		_, err := out.f.Write(append(append([]byte{}, code.Expose()...), '\n'))
		if err = errors.Join(err, out.f.Close()); err != nil {
			return fmt.Errorf("write the code: %w (make another with: fairlead-relay user %s --workspace %s)", err, cli.Clean(h.User), cli.Clean(h.Workspace))
		}
	}
	if h.Link {
		t.Notef("a link for %s, good for %s and once\n", cli.Clean(h.User), h.Life)
		return nil
	}
	in := ""
	if h.Workspace != "default" {
		in = " --workspace " + cli.Clean(h.Workspace)
	}
	t.Notef("a one-time code for %s, good for %s and once: fairlead login --relay %s%s --user %s --first\n", cli.Clean(h.User), h.Life, h.Address, in, cli.Clean(h.User))
	return nil
}
