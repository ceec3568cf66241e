package daemon

import (
	"errors"
	"fmt"
	"os"

	"github.com/kardianos/service"
)

func (s Service) account() string { return s.User }

func (s Service) rights(what string) error {
	if os.Geteuid() != 0 {
		return needRights(what, "root", "run the same command with sudo")
	}
	return nil
}

func (s Service) finish() ([]string, error) { return nil, nil }

// Status asks launchd.
func (s Service) Status() (Status, error) {
	st := Status{Name: s.Name, State: NotInstalled}
	m, err := s.manager()
	if err != nil {
		return st, err
	}
	got, err := m.Status()
	switch {
	case errors.Is(err, service.ErrNotInstalled):
		return st, nil
	case err != nil:
		return st, fmt.Errorf("ask launchd: %w", err)
	case got == service.StatusRunning:
		st.State = Running
	default:
		st.State = Stopped
	}
	return st, nil
}

// remains does not know the data folder: launchd is not asked for the command line. Install makes no account.
func (s Service) remains() (remains, error) {
	st, err := s.Status()
	return remains{installed: err == nil && st.State != NotInstalled}, err
}

func (s Service) removeAccount(string) error { return nil }
