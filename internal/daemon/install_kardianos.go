//go:build !linux

package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kardianos/service"

	"github.com/fairleadhq/fairlead/protocol"
)

// Install registers the service with the system's manager, to be started with the machine. It does not start it. It
// needs an administrator. The notes are for the user.
func (s Service) Install() (notes []string, err error) {
	if s.Executable == "" {
		if s.Executable, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find the program: %w", err)
		}
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := s.rights("service install"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Clean(s.DataDir), 0o700); err != nil {
		return nil, fmt.Errorf("make data folder: %w", err)
	}
	m, err := s.manager()
	if err != nil {
		return nil, err
	}
	if st, err := s.Status(); err == nil && st.State != NotInstalled {
		return nil, &protocol.Error{
			Code: protocol.CodeConflict, Message: "service " + s.Name + " is installed already", Hint: s.Name + " service uninstall, then install",
		}
	}
	if err := m.Install(); err != nil {
		return nil, fmt.Errorf("install service: %w", err)
	}
	notes, err = s.finish()
	if err != nil {
		return nil, errors.Join(err, m.Uninstall())
	}
	return append(notes, "service "+s.Name+" starts with the machine; start it now with \"service start\""), nil
}

// Uninstall stops the service and removes it from the manager. Data stay; the notes say so.
func (s Service) Uninstall() (notes []string, err error) {
	if err := s.rights("service uninstall"); err != nil {
		return nil, err
	}
	m, err := s.installed()
	if err != nil {
		return nil, err
	}
	if st, err := s.Status(); err == nil && st.State == Running {
		if err := m.Stop(); err != nil {
			return nil, fmt.Errorf("stop service: %w", err)
		}
	}
	if err := m.Uninstall(); err != nil {
		return nil, fmt.Errorf("uninstall service: %w", err)
	}
	return []string{
		"removed service " + s.Name,
		"left in place: the data folder with key and audit log, and the configuration",
		"to remove the data too: " + s.Name + " service uninstall --purge --data DIR",
	}, nil
}

// startWait is how long Start waits for the service to be ready.
const startWait = 60 * time.Second

// Start starts the installed service and waits until it is ready.
func (s Service) Start() error {
	if err := s.rights("service start"); err != nil {
		return err
	}
	m, err := s.installed()
	if err != nil {
		return err
	}
	if err := m.Start(); err != nil {
		return fmt.Errorf("start service %s: %w", s.Name, err)
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(startWait); ; <-tick.C {
		st, err := s.Status()
		switch {
		case err != nil:
			return err
		case st.State == Running:
			return nil
		case st.State == Starting && time.Now().Before(end):
			continue
		}
		what := fmt.Sprintf("service %s did not start: it is %s", s.Name, st.State)
		if st.Note != "" {
			what += " (" + st.Note + ")"
		}
		return &protocol.Error{Code: protocol.CodeUnavailable, Message: what, Hint: "the end of its log says why, " + s.Name + ".log in the data folder unless configured, or the system's event log"}
	}
}

// Stop stops the service and waits for it, the drain time included.
func (s Service) Stop() error {
	if err := s.rights("service stop"); err != nil {
		return err
	}
	m, err := s.installed()
	if err != nil {
		return err
	}
	if err := m.Stop(); err != nil {
		return fmt.Errorf("stop service %s: %w", s.Name, err)
	}
	return nil
}

func (s Service) installed() (service.Service, error) {
	st, err := s.Status()
	if err != nil {
		return nil, err
	}
	if st.State == NotInstalled {
		return nil, &protocol.Error{Code: protocol.CodeNotFound, Message: "service " + s.Name + " is not installed", Hint: s.Name + " service install"}
	}
	return s.manager()
}

func (s Service) manager() (service.Service, error) {
	args := append(append([]string(nil), s.Args...), "--service")
	m, err := service.New(nil, &service.Config{
		Name: s.Name, DisplayName: s.DisplayName, Description: s.Description, UserName: s.account(), Executable: s.Executable,
		Arguments: args,
	})
	if err != nil {
		return nil, &protocol.Error{Code: protocol.CodeUnsupported, Message: "this system has no service manager that is known", Cause: err}
	}
	return m, nil
}
