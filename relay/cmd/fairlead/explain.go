package main

import (
	"context"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type explainCommand struct {
	As         string `required:"" placeholder:"PRINCIPAL" help:"Name or id of whom it is about; the name of a token is its principal's."`
	From       string `placeholder:"ADDRESS" help:"Address that it comes from. Without it, your own."`
	Action     string `arg:"" help:"Action, such as connections.read, or an operation on a connection, such as query."`
	Connection string `arg:"" optional:"" help:"Name or id of the connection; none for an action on the workspace."`
	cli.Output
}

func (*explainCommand) Examples() []string {
	return []string{"fairlead explain --as reports query sales", "fairlead explain --as night-shift --from 192.0.2.7 exec sales", "fairlead explain --as reports agents.read"}
}

// lacks says in words what a grant lacks.
var lacks = map[string]string{"action": "its role does not hold the action", "scope": "it is given on something else", "time": "it is over", "source": "it is not for this address"}

func (k *explainCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	e, err := c.Explain(ctx, client.ExplainQuery{Principal: k.As, Action: k.Action, Connection: k.Connection, Source: k.From})
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(e)
	}
	on := "the workspace"
	if e.Connection != "" {
		on = "connection " + e.Connection + " (" + e.Environment + ")"
	}
	answer := "no"
	if e.Allow {
		answer = "yes"
	}
	t.Printf("%s: %s, from %s, on %s: %s\n", cli.Clean(e.PrincipalName), e.Action, e.SourceAddress, cli.Clean(on), answer)
	t.Printf("  because: %s\n", cli.Clean(e.Reason))
	if e.Grant != nil {
		t.Printf("  by:      %s\n", cli.Clean(describe(*e.Grant)))
	}
	if len(e.Missing) > 0 {
		t.Printf("  missing: %s, which these roles hold: %s\n", strings.Join(e.Missing, ", "), cli.Clean(strings.Join(e.Roles, ", ")))
		for _, n := range e.Near {
			var why []string
			for _, l := range n.Lacks {
				why = append(why, lacks[l])
			}
			t.Printf("  near:    %s: %s\n", cli.Clean(describe(n.Grant)), strings.Join(why, ", "))
		}
	}
	switch e.Agent {
	case client.AgentOffers:
		t.Printf("  site:    its agents offer the operation on this profile\n")
	case client.AgentOffersNo:
		t.Printf("  site:    its agents do not offer the operation on this profile: it would be refused there\n")
	case client.AgentMissing:
		t.Printf("  site:    no connected agent offers the profile now\n")
	}
	if e.AgentHint != "" {
		t.Notef("%s\n", cli.Clean(e.AgentHint))
	}
	return nil
}

// describe names a grant in a line.
func describe(g client.Grant) string {
	s := g.ID + ", role " + g.Role + " on " + onWhat(g)
	if g.Team != "" {
		s += ", through team " + g.Team
	}
	if g.Until != nil {
		s += ", until " + stampPtr(g.Until)
	}
	if len(g.From) > 0 {
		s += ", from " + strings.Join(g.From, " ")
	}
	return s
}
