package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/agent"
	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/agent/uplink"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// probeCommand tells what of the ways to the relays passes proxies and firewalls.
type probeCommand struct {
	cli.Output
	Config  string        `required:"" type:"existingfile" placeholder:"FILE" help:"agent.yaml, for its relay block."`
	Data    string        `required:"" type:"existingdir" placeholder:"DIR" help:"Folder that enroll filled."`
	Timeout time.Duration `default:"10s" placeholder:"TIME" help:"For each way to each relay."`
}

func (*probeCommand) Examples() []string {
	return []string{
		"fairlead-agent probe --config agent.yaml --data /var/lib/fairlead-agent",
		"fairlead-agent probe --config agent.yaml --data /var/lib/fairlead-agent --output json",
	}
}

func (c *probeCommand) Run(ctx context.Context, t *cli.Term) error {
	if c.Timeout <= 0 {
		return cli.Usage("--timeout must be more than 0")
	}
	conf, err := agent.Load(c.Config)
	if err != nil {
		return faults(err)
	}
	id, err := enroll.Read(c.Data)
	if err != nil {
		return err
	}
	proxy, err := conf.Proxy()
	if err != nil {
		return err
	}
	up := uplink.Config{Addresses: conf.Relay.Addresses, Proxy: proxy, TLS: mtls.AgentTLS(mtls.NewReloader(id.Keypair), id.Roots, id.Installation),
		Tunnel: tunnel.DefaultConfig(), Transport: conf.Relay.Transport}
	up.Tunnel.Congestion = conf.Relay.Congestion
	if len(up.Addresses) == 0 {
		up.Addresses = id.RelayAddrs
	}
	var all []uplink.Finding
	reached := map[string]bool{}
	uplink.Probe(ctx, up, c.Timeout, func(f uplink.Finding) {
		all = append(all, f)
		reached[f.Address] = reached[f.Address] || f.Used && f.Result == uplink.ProbePasses
		if !c.JSON() {
			printFinding(t, f)
		}
	})
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.JSON() {
		if err := t.JSON(all); err != nil {
			return err
		}
	}
	for _, addr := range up.Addresses {
		if !reached[addr] {
			return &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginAgent,
				Message: fmt.Sprintf("no way that relay.transport: %s may take leads to %s", conf.Relay.Transport, addr),
				Hint:    "the lines that say fails tell where each way ends, and what to ask the admin of that place for"}
		}
	}
	return nil
}

func printFinding(t *cli.Term, f uplink.Finding) {
	note := ""
	if f.Proxy {
		note = ", through the proxy"
	}
	if !f.Used {
		note += ", not taken: relay.transport says otherwise"
	}
	said := f.Reason
	if f.Result == uplink.ProbePasses {
		said = fmt.Sprintf("connected in %.1f ms, round trip %.2f ms", f.Connected, f.RoundTrip)
	}
	t.Printf("%-8s %-9s %s%s: %s\n", f.Result, f.Transport, cli.Clean(f.Address), note, cli.Clean(said))
}
