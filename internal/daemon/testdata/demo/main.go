// Command demo is the service of the tests that run under a real service manager.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/daemon"
)

type grammar struct {
	Run     runCommand      `cmd:"" help:"Run in the foreground."`
	Service daemon.Commands `cmd:"" help:"The service."`
}

type runCommand struct {
	daemon.Flags
	Data string `type:"path" required:"" help:"Folder."`
}

func (c *runCommand) Run(ctx context.Context, s daemon.Service) error {
	say := func(format string, args ...any) {
		f, err := os.OpenFile(filepath.Join(c.Data, "demo.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = fmt.Fprintf(f, format+"\n", args...)
			_ = f.Close()
		}
	}
	s.Managed, s.Drain = c.Managed, 10*time.Second
	s.Reload = func() { say("reload") }
	err := s.Run(ctx, func(ctx context.Context, ready func()) error {
		say("start")
		if _, err := os.Stat(filepath.Join(c.Data, "fail")); err == nil {
			return errors.New("told to fail")
		}
		ready()
		<-ctx.Done()
		say("drain")
		<-time.After(3 * time.Second)
		say("end")
		return nil
	})
	say("returned %v", err)
	return err
}

func main() {
	s := daemon.Service{Name: "fairlead-demo", DisplayName: "Fairlead demo", Description: "Demo", Verb: "run"}
	os.Exit(cli.Run(cli.Program{Name: s.Name, Grammar: &grammar{}, Bind: []any{s}}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
