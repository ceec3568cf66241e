package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
)

// Commands is the command group "service" of a program. The program binds a Service value (cli.Program.Bind) that says
// what it is; the flags fill in the rest.
type Commands struct {
	Install   installCommand   `cmd:"" help:"Install the service; it starts with the machine."`
	Uninstall uninstallCommand `cmd:"" help:"Stop and remove the service; data and configuration stay, unless --purge."`
	Start     startCommand     `cmd:"" help:"Start the installed service."`
	Stop      stopCommand      `cmd:"" help:"Stop the service; running work may finish first."`
	Status    statusCommand    `cmd:"" help:"Show whether the service runs. Exit status 3: not running, 4: not installed."`
}

// Exit statuses of "service status", as in the Linux Standard Base.
const (
	exitNotRunning   = 3
	exitNotInstalled = 4
)

// DefaultData is the data folder of a service that names none.
func DefaultData(name string) string {
	if runtime.GOOS == "windows" {
		base := os.Getenv("ProgramData")
		if base == "" {
			base = `C:\ProgramData`
		}
		return filepath.Join(base, "Fairlead", name)
	}
	return "/var/lib/" + name
}

type installCommand struct {
	Config   string `type:"path" placeholder:"FILE" help:"Configuration file that the service runs with."`
	Data     string `type:"path" placeholder:"DIR" help:"Folder of the service's own data. Default: /var/lib/NAME, on Windows %ProgramData%\\Fairlead\\NAME."`
	User     string `placeholder:"NAME" help:"Linux: run under this account instead of one made for the service."`
	LowPorts bool   `help:"Linux: let it listen on ports below 1024."`
}

func (*installCommand) Examples() []string {
	return []string{
		"# as root or administrator; the agent, with the file that says what it offers",
		"fairlead-agent service install --config /etc/fairlead/agent.yaml --data /var/lib/fairlead-agent",
		"# the relay, on a port below 1024", "fairlead-relay service install --data /var/lib/fairlead-relay --low-ports",
	}
}

func (c *installCommand) Run(t *cli.Term, s Service) error {
	if c.Config == "" && s.NeedsConfig {
		return &protocol.Error{Code: protocol.CodeInvalid, Message: "service install wants --config FILE", Hint: "the file that \"" + s.Name + " check\" accepts"}
	}
	s.Args = []string{s.Verb}
	if c.Config != "" {
		if err := readable(c.Config); err != nil {
			return err
		}
		s.Args = append(s.Args, "--config", c.Config)
	}
	s.DataDir = c.Data
	if s.DataDir == "" {
		s.DataDir = DefaultData(s.Name)
	}
	s.Args = append(s.Args, "--data", s.DataDir)
	s.User, s.LowPorts = c.User, c.LowPorts
	notes, err := s.Install()
	if err != nil {
		return err
	}
	say(t, notes)
	return nil
}

func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return f.Close()
}

type uninstallCommand struct {
	Purge bool   `help:"Also remove the data folder (key, certificate, audit log) and the account that install made. Says first what goes and asks."`
	Yes   bool   `short:"y" help:"Do not ask."`
	Data  string `type:"path" placeholder:"DIR" help:"With --purge: the data folder, when the service is not installed any more and had one of its own."`
}

func (*uninstallCommand) Examples() []string {
	return []string{"# as root or administrator", cli.ProgramName + " service uninstall", cli.ProgramName + " service uninstall --purge"}
}

func (c *uninstallCommand) Run(t *cli.Term, s Service) error {
	if c.Purge {
		return c.purge(t, s, s.parts())
	}
	if c.Yes || c.Data != "" {
		return cli.Usage("--yes and --data go with --purge")
	}
	notes, err := s.Uninstall()
	if err != nil {
		return err
	}
	say(t, notes)
	return nil
}

type startCommand struct{}

func (*startCommand) Examples() []string {
	return []string{"# as root or administrator", cli.ProgramName + " service start"}
}

func (*startCommand) Run(t *cli.Term, s Service) error {
	if err := s.Start(); err != nil {
		return err
	}
	say(t, []string{s.Name + " is started"})
	return nil
}

type stopCommand struct{}

func (*stopCommand) Examples() []string {
	return []string{"# as root or administrator", cli.ProgramName + " service stop"}
}

func (*stopCommand) Run(t *cli.Term, s Service) error {
	if err := s.Stop(); err != nil {
		return err
	}
	say(t, []string{s.Name + " is stopped"})
	return nil
}

type statusCommand struct{ cli.Output }

func (*statusCommand) Examples() []string {
	return []string{cli.ProgramName + " service status", cli.ProgramName + " service status --output json"}
}

func (c *statusCommand) Run(t *cli.Term, s Service) error {
	st, err := s.Status()
	if err != nil {
		return err
	}
	if c.JSON() {
		err = t.JSON(st)
	} else {
		pid := ""
		if st.PID != 0 {
			pid = fmt.Sprint(st.PID)
		}
		err = t.Table([]string{"service", "state", "pid", "since", "user", "note"}, [][]string{{st.Name, string(st.State), pid, st.Since, st.User, st.Note}})
	}
	switch {
	case err != nil:
		return err
	case st.State == NotInstalled:
		return &cli.ExitError{Status: exitNotInstalled}
	case st.State != Running:
		return &cli.ExitError{Status: exitNotRunning}
	}
	return nil
}

func say(t *cli.Term, notes []string) {
	for _, n := range notes {
		t.Printf("%s\n", cli.Clean(n))
	}
}
