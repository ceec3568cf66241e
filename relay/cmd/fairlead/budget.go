package main

import (
	"context"
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/relay/client"
)

type budgetCommands struct {
	Show budgetShow `cmd:"" help:"Show what the workspace, or a connection, may use of the relay, and what became of it."`
	Set  budgetSet  `cmd:"" help:"Replace the limits. What runs goes on, by the new ones."`
}

type budgetShow struct {
	Connection string `arg:"" optional:"" help:"Name or id of a connection. Without it, the workspace."`
	cli.Output
}

func (*budgetShow) Examples() []string {
	return []string{"fairlead budget show", "fairlead budget show sales"}
}

func (k *budgetShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := c.Budget(ctx, k.Connection)
	if err != nil {
		return err
	}
	return k.print(t, b)
}

func (k *budgetShow) print(t *cli.Term, b client.Budget) error {
	if k.JSON() {
		return t.JSON(b)
	}
	limit := func(n int64, text string) string {
		if n == 0 {
			return "no limit"
		}
		return text
	}
	burst := b.InForce.Burst
	if burst == 0 {
		burst = b.InForce.Rate
	}
	l := b.InForce
	for _, row := range [][3]string{
		{"operations", limit(l.Rate, fmt.Sprintf("%d a second, %d at once", l.Rate, burst)), fmt.Sprintf("%d begun, %d refused", b.Begun, b.RefusedRate)},
		{"at a time", limit(l.Concurrent, fmt.Sprint(l.Concurrent)), fmt.Sprintf("%d run, %d refused", b.Running, b.RefusedConcurrent)},
		{"egress", limit(l.Egress, cli.Bytes(l.Egress)+" a second"), fmt.Sprintf("%s sent, waited %s", cli.Bytes(b.EgressBytes), (time.Duration(b.EgressWaitedMs) * time.Millisecond).Round(time.Second))},
	} {
		t.Printf("%-11s %-32s %s\n", row[0]+":", row[1], row[2])
	}
	if b.Set != b.InForce {
		t.Notef("the relay's operator sets narrower limits in relay.yaml under budget; these are the ones in force\n")
	}
	return nil
}

type budgetSet struct {
	Rate    int64       `placeholder:"N" help:"Operations begun a second."`
	Burst   int64       `placeholder:"N" help:"Operations begun at once, with --rate. As many as --rate when not given."`
	AtATime int64       `name:"concurrent" placeholder:"N" help:"Operations and open dials at a time."`
	Egress  config.Size `placeholder:"SIZE" help:"Bytes a second towards callers: 512KiB, 10MB. What is more waits."`
	None    bool        `help:"Take all limits away."`
	budgetShow
	ifMatch
}

func (*budgetSet) Examples() []string {
	return []string{"fairlead budget set --rate 100 --burst 300 --concurrent 200 --egress 50MB", "fairlead budget set sales --concurrent 20", "fairlead budget set sales --none"}
}

func (k *budgetSet) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	l := client.Limits{Rate: k.Rate, Burst: k.Burst, Concurrent: k.AtATime, Egress: int64(k.Egress)}
	if (l == client.Limits{}) != k.None {
		return cli.Usage("want limits, or --none alone: fairlead budget set --rate 100 --concurrent 200")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := k.on(c).SetBudget(ctx, k.Connection, l)
	if err != nil {
		return err
	}
	return k.print(t, b)
}
