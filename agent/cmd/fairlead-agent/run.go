package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/agent"
	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/daemon"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
)

type enrollCommand struct {
	Data      string `required:"" type:"path" placeholder:"DIR" help:"Folder for the agent's identity and audit log; made when missing."`
	Token     string `placeholder:"TOKEN" help:"The join token. Others on this machine can read arguments: prefer --token-file or standard input."`
	TokenFile string `type:"existingfile" placeholder:"FILE" help:"File that holds the join token. Without this and --token it is read from standard input."`
	Config    string `type:"existingfile" placeholder:"FILE" help:"agent.yaml, for its relay.proxy when the way out leads through one."`
	Name      string `placeholder:"NAME" help:"What the agent is called at the relay. Default: this machine's name."`
	Force     bool   `help:"Replace an identity that the folder holds already."`
}

func (*enrollCommand) Examples() []string {
	return []string{
		"# at the relay: fairlead join-token create --group default > join.token",
		"fairlead-agent enroll --data /var/lib/fairlead-agent --token-file join.token",
		"# through a proxy that agent.yaml names",
		"fairlead-agent enroll --data /var/lib/fairlead-agent --config agent.yaml < join.token",
	}
}

func (c *enrollCommand) Run(ctx context.Context, t *cli.Term, b build) error {
	var text secret.Bytes
	switch {
	case c.Token != "" && c.TokenFile != "":
		return cli.Usage("give --token or --token-file, not both")
	case c.Token != "":
		text = secret.FromString(c.Token)
	case c.TokenFile != "":
		raw, err := os.ReadFile(c.TokenFile)
		if err != nil {
			return fmt.Errorf("read the join token: %w", err)
		}
		text = secret.New(raw)
	default:
		var err error
		if text, err = t.ReadSecret("Join token"); err != nil {
			return err
		}
	}
	token, err := mtls.ParseJoinToken(strings.TrimSpace(text.ExposeString()))
	if err != nil {
		return &protocol.Error{Code: protocol.CodeInvalid, Message: "the join token cannot be read: " + err.Error(), Hint: "copy it whole: it begins with flj_"}
	}
	var proxy uplink.Proxy
	transport := uplink.TransportAuto
	if c.Config != "" {
		cfg, err := agent.Load(c.Config)
		if err != nil {
			return faults(err)
		}
		if proxy, err = cfg.Proxy(); err != nil {
			return err
		}
		transport = cfg.Relay.Transport
	}
	req := enroll.Request{Dir: c.Data, Addrs: token.Addrs, Pin: token.Pin, Secret: token.SecretText(), Name: c.Name, Version: b.version, Dial: proxy.Dial, Force: c.Force}
	switch transport {
	case uplink.TransportWebSocket:
		req.Dial = uplink.WebSocketDial(proxy, nil)
	case uplink.TransportAuto:
		req.Fallback = func(cause error) func(context.Context, string, string) (net.Conn, error) {
			if !uplink.Blocked(cause) {
				return nil
			}
			t.Notef("TCP does not pass (%v); trying WebSocket ...\n", cause)
			return uplink.WebSocketDial(proxy, nil)
		}
	}
	t.Notef("enrolling with %s ...\n", strings.Join(token.Addrs, ", "))
	id, err := enroll.Enroll(ctx, req)
	if err != nil {
		return err
	}
	t.Printf("enrolled as agent %s of group %s; the certificate is valid until %s and renews itself\n", id.Agent, id.Group, id.Keypair.Leaf().NotAfter.Local().Format(time.DateTime))
	return nil
}

type runCommand struct {
	daemon.Flags
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"agent.yaml: what the site offers. A changed file is applied while the agent runs."`
	Data   string `required:"" type:"existingdir" placeholder:"DIR" help:"Folder that enroll filled."`
}

func (*runCommand) Examples() []string {
	return []string{"fairlead-agent run --config agent.yaml --data /var/lib/fairlead-agent"}
}

func (c *runCommand) Run(ctx context.Context, svc daemon.Service, b build) error {
	cfg, err := agent.Load(c.Config)
	if err != nil {
		cfg, err = agent.DefaultConfig(), faults(err)
	}
	svc.DataDir, svc.Managed, svc.Drain = c.Data, c.Managed, agent.DrainTime+5*time.Second
	l := daemon.Log{Level: cfg.Log.Level, Format: cfg.Log.Format, File: cfg.Log.File, MaxSize: int64(cfg.Log.MaxSize), Keep: cfg.Log.Keep}
	return svc.RunLogged(ctx, l, err, func(ctx context.Context, log *slog.Logger, ready func()) error {
		a, err := agent.New(agent.Options{ConfigFile: c.Config, DataDir: c.Data, Version: b.version, Logger: log})
		if errors.Is(err, enroll.ErrNotEnrolled) {
			return notEnrolled(c.Data)
		}
		if err != nil {
			return faults(err)
		}
		log.Info("agent starts", "agent", a.ID(), "version", b.version, "config", c.Config, "digest", a.ConfigDigest())
		// The service is up when it works, not when the relay is reached: a relay that is away must not stop the machine's start.
		ready()
		return a.Run(ctx)
	})
}

func notEnrolled(dir string) error {
	return cli.BadConfig(dir+" holds no identity: this agent is not enrolled", "run: fairlead-agent enroll --data "+dir+" --token-file FILE")
}

type checkCommand struct {
	cli.Output
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"agent.yaml"`
}

func (*checkCommand) Examples() []string {
	return []string{"fairlead-agent check --config agent.yaml"}
}

func (c *checkCommand) Run(t *cli.Term) error {
	cfg, err := agent.Load(c.Config)
	if err != nil {
		return faults(err)
	}
	p, err := cfg.Policy()
	if err != nil {
		return faults(err)
	}
	offers := p.Offers()
	if c.JSON() {
		return t.JSON(struct {
			Digest   string                  `json:"digest"`
			Profiles []protocol.ProfileOffer `json:"profiles"`
			Warnings []config.Fault          `json:"warnings,omitempty"`
		}{p.Digest(), offers, cfg.Warnings})
	}
	for _, w := range cfg.Warnings {
		t.Notef("warning: %s\n", cli.Clean(w.Error()))
	}
	t.Printf("%s is in order (digest %s); it offers:\n", c.Config, p.Digest())
	if len(offers) == 0 {
		t.Printf("nothing\n")
		return nil
	}
	table := cli.NewTable(t.Data(), []string{"KIND", "PROFILE", "ADAPTER", "OPERATIONS"}, nil)
	for _, o := range offers {
		ops := make([]string, len(o.Operations))
		for i, op := range o.Operations {
			ops[i] = string(op)
		}
		if err := table.Row(string(o.Kind), o.Name, o.Adapter, strings.Join(ops, " ")); err != nil {
			return err
		}
	}
	return table.Flush()
}

// faults turns what is wrong with a configuration into one error with the exit status of a refused configuration.
func faults(err error) error {
	var fs config.Faults
	switch {
	case errors.As(err, &fs):
		return cli.BadConfig("the configuration is not in order\n"+fs.Error(), "docs/agent-yaml.md explains every key")
	case errors.Is(err, config.ErrInsecure):
		return cli.BadConfig(err.Error(), "what may change this file may change what the agent offers")
	}
	return err
}
