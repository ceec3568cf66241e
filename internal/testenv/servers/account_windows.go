package servers

import "os/exec"

type account struct{}

func lookup(string) (*account, error) { return &account{}, nil }

func (a *account) use(*exec.Cmd)       {}
func (a *account) own(...string) error { return nil }

func (a *account) server(_, name string, args ...string) (*exec.Cmd, func(), error) {
	cmd := exec.Command(name, args...)
	return cmd, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	}, nil
}
