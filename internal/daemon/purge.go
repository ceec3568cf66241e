package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
)

// remains is what an uninstalled service leaves behind.
type remains struct {
	installed bool
	dataDir   string // "" when the definition of the service does not say
	account   string // of the service's name; "" for none
	home      string // of the account: the data folder, when install made it
}

// parts is what purge does to the machine, so that tests need not be root.
type parts struct {
	rights        func(what string) error
	remains       func() (remains, error)
	uninstall     func() ([]string, error)
	removeAccount func(name string) error
}

func (s Service) parts() parts { return parts{s.rights, s.remains, s.Uninstall, s.removeAccount} }

// maxListed bounds the list of what goes.
const maxListed = 40

// purge removes the service, its data folder and the account that install made for it, after it has said what goes and was
// told yes, by flag or by the typed name of the service (row L17).
func (c *uninstallCommand) purge(t *cli.Term, s Service, m parts) error {
	if err := m.rights("service uninstall --purge"); err != nil {
		return err
	}
	left, err := m.remains()
	if err != nil {
		return err
	}
	dir := c.Data
	switch {
	case dir != "" && left.dataDir != "" && filepath.Clean(dir) != filepath.Clean(left.dataDir):
		return cli.Usage("--data %s: the installed service uses %s", dir, left.dataDir)
	case dir == "" && left.dataDir != "":
		dir = left.dataDir
	case dir == "" && left.installed:
		return cli.Usage("the definition of the service does not name its data folder: say it with --data DIR")
	case dir == "":
		dir = DefaultData(s.Name)
	}
	if left.home != filepath.Clean(dir) {
		left.account = "" // an account of the admin's own
	}
	data, err := s.survey(dir)
	if err != nil {
		return err
	}
	if !left.installed && !data.exists && left.account == "" {
		return &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf("nothing is left to purge: no service %s, no folder %s", s.Name, dir)}
	}
	t.Notef("this goes, and cannot be brought back:\n")
	if left.installed {
		t.Notef("  the service %s; it is stopped first\n", s.Name)
	}
	if data.exists {
		t.Notef("  the data folder %s with %d files, %s:\n", cli.Clean(dir), data.files, cli.Bytes(data.bytes))
		for i, e := range data.entries {
			if i == maxListed {
				t.Notef("    and %d more\n", len(data.entries)-i)
				break
			}
			t.Notef("    %s\n", cli.Clean(e))
		}
	}
	if left.account != "" {
		t.Notef("  the account %s\n", left.account)
	}
	t.Notef("what lies elsewhere stays: the configuration, its secret files, the folders that are served\n")
	if !c.Yes {
		t.Notef("type %s to go on: ", s.Name)
		line, err := bufio.NewReader(t.In).ReadString('\n')
		if strings.TrimSpace(line) != s.Name {
			if err != nil {
				t.Notef("\n")
			}
			return &protocol.Error{Code: protocol.CodeCanceled, Message: "nothing was removed", Hint: "answer with the name of the service, or give --yes"}
		}
	}
	if left.installed {
		notes, err := m.uninstall()
		if err != nil {
			return err
		}
		say(t, notes[:1])
	}
	if data.exists {
		if err := removeTree(dir); err != nil {
			return fmt.Errorf("remove the data folder: %w", err)
		}
		say(t, []string{"removed " + dir})
	}
	if left.account != "" {
		if err := m.removeAccount(left.account); err != nil {
			return fmt.Errorf("remove the account: %w", err)
		}
		say(t, []string{"removed the account " + left.account})
	}
	return nil
}

// removeTree is os.RemoveAll, which some Windows file systems (and Wine) do not know the means of: there one by one.
func removeTree(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || runtime.GOOS != "windows" {
		return err
	}
	var all []string
	if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error { all = append(all, path); return err }); err != nil {
		return err
	}
	for _, path := range slices.Backward(all) { // what is in a folder before the folder
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// contents is what is in a data folder.
type contents struct {
	exists  bool
	files   int
	bytes   int64
	entries []string // of the first level, folders with a separator at their end
}

// survey looks at the data folder and refuses one that does not look like this service's own: whoever installed the
// service with a folder of something else must not lose that.
func (s Service) survey(dir string) (contents, error) {
	var c contents
	if !filepath.IsAbs(dir) || filepath.Dir(filepath.Clean(dir)) == filepath.Clean(dir) {
		return c, protocol.Errorf(protocol.CodeInvalid, "data folder %q: want an absolute path below the root", dir)
	}
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("look at the data folder: %w", err)
	}
	refuse := func(why string) error {
		return &protocol.Error{Code: protocol.CodeConflict, Message: fmt.Sprintf("%s %s; nothing was removed", dir, why), Hint: "uninstall without --purge, then remove by hand what may go"}
	}
	if !info.IsDir() {
		return c, refuse("is not a folder of its own")
	}
	c.exists = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return c, fmt.Errorf("look at the data folder: %w", err)
	}
	known := len(entries) == 0
	for _, e := range entries {
		name := e.Name()
		for _, k := range s.DataFiles {
			known = known || name == k
		}
		if e.IsDir() {
			name += string(filepath.Separator)
		}
		c.entries = append(c.entries, name)
	}
	if !known {
		return c, refuse(fmt.Sprintf("does not look like the data folder of %s: it holds none of %s", s.Name, strings.Join(s.DataFiles, ", ")))
	}
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		c.files++
		if info, err := d.Info(); err == nil { // else it is gone by now
			c.bytes += info.Size()
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return c, fmt.Errorf("look at the data folder: %w", err)
	}
	return c, nil
}
