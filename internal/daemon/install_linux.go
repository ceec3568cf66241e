package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// A system is the parts of the machine that installing touches, so that tests need not be root.
type system struct {
	unitDir string
	booted  string   // exists when systemd runs the machine
	hidden  []string // folders that the unit does not let the service see
	euid    int
	run     func(name string, args ...string) (string, error)
	lookup  func(name string) (uid, gid int, err error)
	home    func(name string) (string, error)
	chown   func(root *os.Root, name string, uid, gid int) error
}

func thisSystem() system {
	return system{
		unitDir: "/etc/systemd/system", booted: "/run/systemd/system", hidden: []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"}, euid: os.Geteuid(), run: run, lookup: lookup, home: home,
		chown: func(root *os.Root, name string, uid, gid int) error { return root.Lchown(name, uid, gid) },
	}
}

func run(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return string(out), nil
}

func lookup(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	uid, err = strconv.Atoi(u.Uid)
	if err != nil {
		return 0, 0, fmt.Errorf("user id %q of %s: %w", u.Uid, name, err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if err != nil {
		return 0, 0, fmt.Errorf("group id %q of %s: %w", u.Gid, name, err)
	}
	return uid, gid, nil
}

func home(name string) (string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return "", err
	}
	return u.HomeDir, nil
}

// Install makes the account if need be, gives it the data folder, writes the unit and enables it. It does not start the
// service. An older unit of ours is replaced; one of somebody else is refused. It needs root. The notes are for the user.
func (s Service) Install() (notes []string, err error) { return s.install(thisSystem()) }

// Uninstall stops and disables the service and removes the unit. Data and account stay; the notes say how to remove them.
func (s Service) Uninstall() (notes []string, err error) { return s.uninstall(thisSystem()) }

// Start starts the installed service and waits until it is ready.
func (s Service) Start() error { return s.control(thisSystem(), "start") }

// Stop stops the service and waits for it, the drain time included.
func (s Service) Stop() error { return s.control(thisSystem(), "stop") }

// Status asks the service manager. It needs no rights.
func (s Service) Status() (Status, error) { return s.status(thisSystem()) }

func (m system) ready(what string) error {
	if _, err := os.Stat(m.booted); err != nil {
		return &protocol.Error{
			Code: protocol.CodeUnsupported, Message: "systemd does not run this machine",
			Hint: "let your own init or container start the program in the foreground",
		}
	}
	if m.euid != 0 {
		return needRights(what, "root", "run the same command with sudo")
	}
	return nil
}

func (s Service) unitPath(m system) string { return filepath.Join(m.unitDir, s.Name+".service") }

func (s Service) install(m system) (notes []string, err error) {
	if s.Executable == "" {
		if s.Executable, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find the program: %w", err)
		}
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := m.ready("service install"); err != nil {
		return nil, err
	}
	for _, path := range append([]string{s.Executable, s.DataDir}, s.Args...) {
		for _, folder := range m.hidden {
			if strings.HasPrefix(filepath.Clean(path), folder+"/") {
				return nil, &protocol.Error{
					Code: protocol.CodeInvalid, Message: fmt.Sprintf("%s is in %s, which the service cannot see", path, folder),
					Hint: "program in /usr/local/bin, configuration in /etc/fairlead, data in /var/lib/" + s.Name,
				}
			}
		}
	}
	unit := s.unitPath(m)
	old, err := os.ReadFile(unit)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read unit: %w", err)
	}
	if err == nil && !bytes.HasPrefix(old, []byte(unitMark)) {
		return nil, &protocol.Error{
			Code: protocol.CodeConflict, Message: unit + " exists and was not written by this program",
			Hint: "a package may have installed it: start it with systemctl, or remove it first",
		}
	}
	uid, gid, err := m.lookup(s.user())
	if err != nil {
		if s.User != "" {
			return nil, &protocol.Error{Code: protocol.CodeNotFound, Message: fmt.Sprintf("there is no account %q", s.User), Hint: "make it first, or leave --user out"}
		}
		if _, err := m.run("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", s.DataDir, "--shell", "/usr/sbin/nologin", s.Name); err != nil {
			return nil, fmt.Errorf("make the account: %w", err)
		}
		notes = append(notes, "made the system account "+s.Name)
		if uid, gid, err = m.lookup(s.Name); err != nil {
			return nil, fmt.Errorf("make the account: %w", err)
		}
	}
	if uid == 0 {
		return nil, protocol.Errorf(protocol.CodeInvalid, "the service does not run as root; name another account")
	}
	if err := s.giveData(m, uid, gid); err != nil {
		return nil, err
	}
	if err := writeUnit(unit, s.unit()); err != nil {
		return nil, err
	}
	undo := func() {
		if old == nil {
			_ = os.Remove(unit)
		} else {
			_ = writeUnit(unit, string(old))
		}
		_, _ = m.run("systemctl", "daemon-reload")
	}
	for _, args := range [][]string{{"daemon-reload"}, {"enable", s.Name + ".service"}} {
		if _, err := m.run("systemctl", args...); err != nil {
			undo()
			return nil, err
		}
	}
	return append(notes, "wrote "+unit, "it runs as "+s.user()+" and starts with the machine; start it now with \"service start\""), nil
}

// giveData makes the data folder and gives the account what root made in it (enrolment by root leaves such files). It
// does not follow symbolic links and leaves alone what belongs to others.
func (s Service) giveData(m system, uid, gid int) error {
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	root, err := os.OpenRoot(s.DataDir)
	if err != nil {
		return fmt.Errorf("open data folder: %w", err)
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("walk data folder: %w", err)
		}
		info, err := root.Lstat(name)
		if err != nil {
			return fmt.Errorf("walk data folder: %w", err)
		}
		if owner(info) != 0 {
			return nil
		}
		if err := m.chown(root, name, uid, gid); err != nil {
			return fmt.Errorf("give %s to the account: %w", filepath.Join(s.DataDir, name), err)
		}
		return nil
	})
}

// writeUnit replaces the file in one step.
func writeUnit(path, text string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".fairlead-*")
	if err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already when all went well
	_, err = tmp.WriteString(text)
	if e := tmp.Chmod(0o644); err == nil {
		err = e
	}
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write unit: %w", err)
	}
	return nil
}

func (s Service) uninstall(m system) ([]string, error) {
	if err := m.ready("service uninstall"); err != nil {
		return nil, err
	}
	unit := s.unitPath(m)
	old, err := os.ReadFile(unit)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.notInstalled()
	}
	if err != nil {
		return nil, fmt.Errorf("read unit: %w", err)
	}
	if !bytes.HasPrefix(old, []byte(unitMark)) {
		return nil, &protocol.Error{
			Code: protocol.CodeConflict, Message: unit + " was not written by this program", Hint: "remove it the way it came, with the package manager",
		}
	}
	if _, err := m.run("systemctl", "disable", "--now", s.Name+".service"); err != nil {
		return nil, err
	}
	if err := os.Remove(unit); err != nil {
		return nil, fmt.Errorf("remove unit: %w", err)
	}
	if _, err := m.run("systemctl", "daemon-reload"); err != nil {
		return nil, err
	}
	account := s.user()
	for line := range strings.Lines(string(old)) {
		if name, ok := strings.CutPrefix(line, "User="); ok {
			account = strings.TrimSpace(name)
		}
	}
	return []string{
		"removed " + unit,
		"left in place: the data folder with key and audit log, the configuration, and the account " + account,
		"to remove data and an account that install made: " + s.Name + " service uninstall --purge --data DIR",
	}, nil
}

func (s Service) rights(what string) error { return thisSystem().ready(what) }

func (s Service) remains() (remains, error) { return s.remainsOn(thisSystem()) }

// remainsOn reads the unit, and looks up the account.
func (s Service) remainsOn(m system) (remains, error) {
	var r remains
	b, err := os.ReadFile(s.unitPath(m))
	switch {
	case err == nil && !bytes.HasPrefix(b, []byte(unitMark)):
		return r, &protocol.Error{
			Code: protocol.CodeConflict, Message: s.unitPath(m) + " was not written by this program", Hint: "remove it the way it came, with the package manager",
		}
	case err == nil:
		r.installed = true
	case !errors.Is(err, fs.ErrNotExist):
		return r, fmt.Errorf("read unit: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "StateDirectory="); ok {
			r.dataDir = "/var/lib/" + unquote(rest)
		} else if rest, ok := strings.CutPrefix(line, "ReadWritePaths="); ok {
			r.dataDir = unquote(rest)
		}
	}
	if dir, err := m.home(s.Name); err == nil && dir != "" {
		r.account, r.home = s.Name, filepath.Clean(dir)
	}
	return r, nil
}

func (s Service) removeAccount(name string) error {
	_, err := thisSystem().run("userdel", name)
	return err
}

func (s Service) control(m system, verb string) error {
	if err := m.ready("service " + verb); err != nil {
		return err
	}
	st, err := s.status(m)
	if err != nil {
		return err
	}
	if st.State == NotInstalled {
		return s.notInstalled()
	}
	if _, err := m.run("systemctl", verb, s.Name+".service"); err != nil {
		return &protocol.Error{
			Code: protocol.CodeUnavailable, Message: fmt.Sprintf("systemd could not %s %s", verb, s.Name),
			Hint: "journalctl -u " + s.Name + " -n 50 shows why", Cause: err,
		}
	}
	return nil
}

func (s Service) notInstalled() error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "service " + s.Name + " is not installed", Hint: s.Name + " service install"}
}

func (s Service) status(m system) (Status, error) {
	st := Status{Name: s.Name, State: NotInstalled}
	out, err := m.run("systemctl", "show", "--no-pager", "--property=LoadState,ActiveState,MainPID,ActiveEnterTimestamp,NRestarts,Result,FragmentPath,User", s.Name+".service")
	if err != nil {
		if _, miss := os.Stat(m.booted); miss != nil {
			return st, m.ready("service status")
		}
		return st, err
	}
	v := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			v[key] = value
		}
	}
	if v["LoadState"] == "not-found" {
		return st, nil
	}
	switch v["ActiveState"] {
	case "active", "reloading":
		st.State = Running
	case "activating":
		st.State = Starting
	case "deactivating":
		st.State = Stopping
	case "failed":
		st.State = Failed
	default:
		st.State = Stopped
	}
	st.PID, _ = strconv.Atoi(v["MainPID"])
	st.Since, st.Unit, st.User = v["ActiveEnterTimestamp"], v["FragmentPath"], v["User"]
	var note []string
	if r := v["Result"]; r != "" && r != "success" {
		note = append(note, "last end: "+r)
	}
	if n := v["NRestarts"]; n != "" && n != "0" {
		note = append(note, "started again "+n+" times")
	}
	st.Note = strings.Join(note, "; ")
	return st, nil
}
