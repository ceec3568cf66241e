package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// Service describes a service of this system.
type Service struct {
	Name        string // letters, digits and "-": name of the unit, of the Windows service and of the account
	DisplayName string
	Description string // one line
	Verb        string // the sub-command that runs it: "run", "serve"
	NeedsConfig bool   // install wants --config
	// FolderAccess is set for a service that serves folders which its configuration names while it runs: the unit then
	// leaves them to the rights of the account (ProtectSystem=full) instead of sealing the file system (strict).
	FolderAccess bool
	// Args is the command line after the program, with absolute paths and without secrets. The install command fills it.
	Args       []string
	Executable string // "" means the running program
	User       string // Linux: account; "" means Name, made when it does not exist. Windows: NT SERVICE\Name always
	DataDir    string // the folder that the service may write; absolute
	// DataFiles are names of which a data folder of this service holds one at least: purge removes no other folder.
	DataFiles []string
	LowPorts  bool // Linux: may listen on ports below 1024
	// Drain is how long Run gives the function after its context has ended; 0 means 30 s.
	Drain time.Duration
	// Reload is called, never twice at a time, on SIGHUP and on the Windows control "param change". nil ignores them.
	Reload func()
	// Managed says that the service manager started us although it cannot be seen: Windows containers and Wine. It comes
	// from Flags.
	Managed bool
	Log     *slog.Logger // nil logs nothing
}

// Flags is embedded by the command that runs the service.
type Flags struct {
	Managed bool `name:"service" hidden:"" help:"Started by the service manager."`
}

// DefaultDrain is the drain time when none is given.
const DefaultDrain = 30 * time.Second

// State of a service.
type State string

const (
	NotInstalled State = "not installed"
	Stopped      State = "stopped"
	Starting     State = "starting"
	Running      State = "running"
	Stopping     State = "stopping"
	Failed       State = "failed" // ended by itself and is not being started again, or waits for that
)

// Status is what the service manager says.
type Status struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	PID   int    `json:"pid,omitempty"`
	Since string `json:"since,omitempty"`   // as the manager prints it
	Note  string `json:"note,omitempty"`    // why it failed, how often it was started again
	Unit  string `json:"unit,omitempty"`    // file that defines it
	User  string `json:"user,omitempty"`    // account that it runs under
	Start string `json:"command,omitempty"` // command line
}

// A RunFunc is the program's work. It returns soon after ctx has ended, at the latest after the drain time, and calls
// ready once it has accepted its configuration and does its work. Its error is the service's failure.
type RunFunc func(ctx context.Context, ready func()) error

func (s Service) drain() time.Duration {
	if s.Drain > 0 {
		return s.Drain
	}
	return DefaultDrain
}

func (s Service) log() *slog.Logger {
	if s.Log != nil {
		return s.Log
	}
	return slog.New(slog.DiscardHandler)
}

// supervise runs fn and gives it the drain time after ctx has ended. Every second of that time it calls stopping with
// what is left at most. A function that overruns is left behind: the process must end then, and the error says so.
func (s Service) supervise(ctx context.Context, fn RunFunc, ready func(), stopping func(left time.Duration)) error {
	done := make(chan error, 1)
	go func() { done <- fn(ctx, ready) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	deadline := time.Now().Add(s.drain())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	stopping(s.drain())
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			left := time.Until(deadline)
			if left <= 0 {
				return protocol.Errorf(protocol.CodeTimeout, "%s did not stop within %v; what it still did was cut", s.Name, s.drain())
			}
			stopping(left)
		}
	}
}

// check refuses what cannot be installed.
func (s Service) check() error {
	if s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || s.Name[0] == '-' {
		return protocol.Errorf(protocol.CodeInvalid, "service name %q: want lower-case letters, digits and -", s.Name)
	}
	for _, text := range append([]string{s.Description, s.DisplayName, s.Executable, s.DataDir, s.User}, s.Args...) {
		if strings.ContainsAny(text, "\n\r\x00") {
			return protocol.Errorf(protocol.CodeInvalid, "service %s: %q has a line break", s.Name, text)
		}
	}
	if !filepath.IsAbs(s.DataDir) || filepath.Dir(filepath.Clean(s.DataDir)) == filepath.Clean(s.DataDir) {
		return protocol.Errorf(protocol.CodeInvalid, "data folder %q: want an absolute path below the root", s.DataDir)
	}
	if !filepath.IsAbs(s.Executable) {
		return protocol.Errorf(protocol.CodeInvalid, "program %q: want an absolute path", s.Executable)
	}
	return nil
}

func needRights(what, who, hint string) error {
	return &protocol.Error{Code: protocol.CodeDenied, Message: fmt.Sprintf("%s needs %s", what, who), Hint: hint}
}
