package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/daemon"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay"
)

// grammar is the command line.
type grammar struct {
	Init      initCommand       `cmd:"" help:"Make a new installation: CA, key file, workspace, agent group, relay.yaml and the first admin token."`
	Serve     serveCommand      `cmd:"" help:"Serve until stopped."`
	Check     checkCommand      `cmd:"" help:"Check relay.yaml; says every fault with its line."`
	Token     tokenCommand      `cmd:"" help:"Make another admin token on the relay's own machine, when the first was lost."`
	User      userCommand       `cmd:"" help:"Make an admin who signs in with a password, or give a new one-time code, on the relay's own machine."`
	Workspace workspaceCommands `cmd:"" help:"Make and list workspaces on the relay's own machine."`
	Mail      mailCommands      `cmd:"" help:"E-mail to people."`
	Allowlist allowlistCommand  `cmd:"" help:"Replace the allowlist of a workspace on the relay's own machine, for who is locked out."`
	Service   daemon.Commands   `cmd:"" help:"Install, remove, start and stop the service of this machine."`
}

// Examples is shown by --help.
func (*grammar) Examples() []string {
	return []string{
		"fairlead-relay init --data /var/lib/fairlead-relay --public-address relay.example.com:443 --token-file admin.token",
		"fairlead-relay serve --data /var/lib/fairlead-relay",
	}
}

func main() { os.Exit(cli.Run(program(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func program() cli.Program {
	svc := daemon.Service{Name: "fairlead-relay", DisplayName: "Fairlead relay", Verb: "serve",
		DataFiles: []string{"relay.yaml", "fairlead.db", "kek.key", "fairlead-relay.log"}, Description: "Brokers access to on-prem targets through agents that dial out."}
	return cli.Program{Name: "fairlead-relay", Description: "The cloud half of Fairlead: lets callers in, keeps the record, reaches the agents that dialled in.",
		Grammar: &grammar{}, Bind: []any{svc, build{cli.Build("fairlead-relay").Version}}}
}

// build tells commands which build they are.
type build struct{ version string }

type initCommand struct {
	Data          string   `required:"" type:"path" placeholder:"DIR" help:"Folder of the installation; made when missing, refused when it holds one."`
	Listen        string   `default:":8443" placeholder:"ADDR" help:"Address and port that agents and people share."`
	PublicAddress string   `placeholder:"HOST:PORT" help:"Where agents and people reach it. Default: this machine's name and the port of --listen."`
	Health        string   `default:"127.0.0.1:9443" placeholder:"ADDR" help:"Listener of health and metrics; empty for none."`
	Allow         []string `placeholder:"CIDR" help:"Where callers may come from; repeat it. Default: this machine only. Change it later with: fairlead allowlist set."`
	TokenFile     string   `type:"path" placeholder:"FILE" help:"Write the first admin token there, readable by you alone, instead of printing it."`
}

func (*initCommand) Examples() []string {
	return []string{
		"fairlead-relay init --data ./relay --token-file ./admin.token",
		"fairlead-relay init --data /var/lib/fairlead-relay --listen :443 --public-address relay.example.com:443 --allow 203.0.113.0/24",
	}
}

func (c *initCommand) Run(ctx context.Context, t *cli.Term) error {
	allow, err := prefixes("--allow ", c.Allow)
	if err != nil {
		return err
	}
	if c.TokenFile != "" {
		if _, err := os.Lstat(c.TokenFile); !errors.Is(err, fs.ErrNotExist) {
			return protocol.Errorf(protocol.CodeConflict, "--token-file %s is there already; it is not replaced", c.TokenFile)
		}
	}
	out, err := relay.Init(ctx, relay.InitOptions{Data: c.Data, Listen: c.Listen, PublicAddress: c.PublicAddress, Health: c.Health, Allow: allow})
	if err != nil {
		return err
	}
	t.Notef("made installation %s in %s\n", out.Installation, c.Data)
	t.Notef("  CA certificate:   %s (public: callers need it)\n", out.RootFile)
	t.Notef("  key file:         %s (opens everything that is sealed: keep a copy apart from backups)\n", out.KEKFile)
	t.Notef("  configuration:    %s\n", out.ConfigFile)
	t.Notef("  agents and people reach it at %s\n", out.PublicAddress)
	if err := giveToken(t, c.TokenFile, out.Token); err != nil {
		return err
	}
	t.Notef("next: fairlead-relay serve --data %s\n", c.Data)
	return nil
}

// giveToken writes a token to a file for its owner alone, or prints it, this once.
func giveToken(t *cli.Term, file string, token secret.Bytes) error {
	if file == "" {
		t.Notef("the admin token, shown this once:\n")
		t.Printf("%s\n", token.ExposeString())
		return nil
	}
	if err := os.WriteFile(file, append(append([]byte{}, token.Expose()...), '\n'), 0o600); err != nil {
		return fmt.Errorf("write the admin token: %w (make another with: fairlead-relay token)", err)
	}
	t.Notef("  admin token:      %s\n", file)
	return nil
}

// where is embedded by commands that work on an installation.
type where struct {
	Data   string `type:"existingdir" placeholder:"DIR" help:"Folder that init made; its relay.yaml is read."`
	Config string `type:"existingfile" placeholder:"FILE" help:"relay.yaml, when it is not in --data."`
}

func (w where) load() (relay.Config, string, error) {
	file := w.Config
	switch {
	case w.Config == "" && w.Data == "":
		return relay.Config{}, "", cli.Usage("give --data DIR or --config FILE")
	case w.Config != "" && w.Data != "":
		return relay.Config{}, "", cli.Usage("give --data or --config, not both")
	case file == "":
		file = filepath.Join(w.Data, "relay.yaml")
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return relay.Config{}, "", &protocol.Error{Code: protocol.CodeInvalid, Message: w.Data + " holds no installation (no relay.yaml)", Hint: "run: fairlead-relay init --data " + w.Data}
		}
	}
	c, err := relay.LoadConfig(file)
	var fs config.Faults
	if errors.As(err, &fs) {
		return c, file, cli.BadConfig("the configuration is not in order\n"+fs.Error(), "configs/relay.full.yaml explains every key")
	}
	if errors.Is(err, config.ErrInsecure) {
		return c, file, cli.BadConfig(err.Error(), "what may change this file may change what the relay does")
	}
	return c, file, err
}

type serveCommand struct {
	daemon.Flags
	where
}

func (*serveCommand) Examples() []string {
	return []string{"fairlead-relay serve --data /var/lib/fairlead-relay"}
}

func (c *serveCommand) Run(ctx context.Context, svc daemon.Service, b build) error {
	cfg, _, err := c.load()
	if err != nil {
		svc.DataDir = c.Data
		if svc.DataDir == "" {
			svc.DataDir = filepath.Dir(c.Config)
		}
		cfg = relay.DefaultConfig()
	} else {
		svc.DataDir = cfg.Data
	}
	svc.Managed, svc.Drain = c.Managed, relay.DrainTime+5*time.Second
	l := daemon.Log{Level: cfg.Log.Level, Format: cfg.Log.Format, File: cfg.Log.File, MaxSize: int64(cfg.Log.MaxSize), Keep: cfg.Log.Keep}
	return svc.RunLogged(ctx, l, err, func(ctx context.Context, log *slog.Logger, ready func()) error {
		r, err := relay.New(ctx, relay.Options{Config: cfg, Version: b.version, Logger: log})
		if err != nil {
			return err
		}
		done := make(chan struct{})
		defer close(done)
		go func() {
			select {
			case <-r.Ready():
				ready()
			case <-done:
			}
		}()
		return r.Run(ctx)
	})
}

type checkCommand struct{ where }

func (*checkCommand) Examples() []string {
	return []string{"fairlead-relay check --config relay.yaml"}
}

func (c *checkCommand) Run(t *cli.Term) error {
	cfg, file, err := c.load()
	if err != nil {
		return err
	}
	t.Printf("%s is in order: listens on %s, reached at %s, state in %s\n", file, cfg.Listen, cfg.PublicAddress, cfg.Data)
	return nil
}

type tokenCommand struct {
	where
	Workspace string        `default:"default" placeholder:"NAME" help:"Workspace that the token is for."`
	Name      string        `default:"recovery" placeholder:"NAME" help:"Name of the new admin principal."`
	Owner     bool          `help:"Make it an owner of the workspace, not an admin."`
	Expires   time.Duration `default:"24h" help:"How long the token is good."`
	TokenFile string        `type:"path" placeholder:"FILE" help:"Write the token there, readable by you alone, instead of printing it."`
}

func (*tokenCommand) Examples() []string {
	return []string{"fairlead-relay token --data /var/lib/fairlead-relay --expires 1h --token-file admin.token"}
}

func (c *tokenCommand) Run(ctx context.Context, t *cli.Term) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	token, err := relay.AdminToken(ctx, cfg, c.Workspace, c.Name, c.Owner, c.Expires)
	if err != nil {
		return err
	}
	return giveToken(t, c.TokenFile, token)
}
