package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/plan"
)

type promoteCommand struct {
	Project  string `required:"" placeholder:"NAME" help:"Name of the project."`
	From     string `required:"" enum:"development,test,production" placeholder:"ENV" help:"Environment to copy from: ${enum}."`
	To       string `required:"" enum:"development,test,production" placeholder:"ENV" help:"Environment to copy to: ${enum}."`
	Map      string `type:"path" placeholder:"FILE" help:"File that says what each connection becomes."`
	WriteMap string `type:"path" placeholder:"FILE" help:"Write a proposal for such a file, to be edited, and do nothing else."`
	Apply    bool   `help:"Do it. Without this, show the plan alone."`
	Yes      bool   `short:"y" help:"Do not ask. Wanted where there is no terminal to ask on."`
	cli.Output
}

func (*promoteCommand) Examples() []string {
	return []string{
		"fairlead promote --project sales --from development --to test --write-map map.yaml",
		"fairlead promote --project sales --from development --to test --map map.yaml",
		"fairlead promote --project sales --from development --to test --map map.yaml --apply",
	}
}

func (k *promoteCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	route := plan.Route{Project: k.Project, From: k.From, To: k.To}
	switch {
	case k.From == k.To:
		return cli.Usage("--from and --to are the same environment")
	case (k.Map == "") == (k.WriteMap == ""):
		return cli.Usage("want either --map FILE or --write-map FILE")
	case k.Apply && k.WriteMap != "", k.Yes && !k.Apply:
		return cli.Usage("--apply is for --map, and --yes for --apply")
	}
	if k.WriteMap != "" {
		return k.propose(ctx, t, r, route)
	}
	m, err := plan.LoadMapping(k.Map, route)
	if err != nil {
		return badFiles(err)
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := plan.Promote(ctx, c, route, m)
	if err != nil {
		return badFiles(err)
	}
	switch {
	case k.Apply:
		t.Notef("%s", promotionText(p))
		return takeSteps(ctx, t, c, p.Plan, k.Yes, k.Output)
	case k.JSON():
		return t.JSON(p)
	}
	t.Printf("%s", promotionText(p))
	return nil
}

// propose writes a file that is not there yet.
func (k *promoteCommand) propose(ctx context.Context, t *cli.Term, r *relayFlags, route plan.Route) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := plan.ProposeMapping(ctx, c, route)
	if err != nil {
		return about(k.Project, err)
	}
	f, err := os.OpenFile(k.WriteMap, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return &protocol.Error{Code: protocol.CodeConflict, Message: k.WriteMap + " is there already", Hint: "nothing was written; name another file, or remove it"}
	}
	if err != nil {
		return err
	}
	_, err = f.Write([]byte(cli.CleanLines(string(b))))
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	t.Notef("%s is a proposal: look at each line, then promote with --map\n", cli.Clean(k.WriteMap))
	return nil
}

// promotionText shows a promotion to people.
func promotionText(p *plan.Promotion) string {
	var b strings.Builder
	count := stepsText(&b, p.Steps)
	for _, l := range p.Same {
		fmt.Fprintf(&b, "same    connection %s\n", cli.Clean(l))
	}
	for _, l := range p.Skipped {
		fmt.Fprintf(&b, "skipped connection %s\n", cli.Clean(l))
	}
	for _, l := range p.NotCopied {
		fmt.Fprintf(&b, "not copied: %s\n", cli.Clean(l))
	}
	fmt.Fprintf(&b, "project %s, %s to %s: %d to create, %d to change, %d the same, %d skipped\n", cli.Clean(p.Project), p.From, p.To, count[plan.Create], count[plan.Change], len(p.Same), len(p.Skipped))
	b.WriteString("never copied: credentials, which stay at the site, gateways, budgets, grants on single connections\n")
	return b.String()
}

// takeSteps asks, takes the steps of a plan that was shown, and says what came of it.
func takeSteps(ctx context.Context, t *cli.Term, c *client.Client, p *plan.Plan, yes bool, o cli.Output) error {
	if len(p.Steps) > 0 && !yes {
		if !cli.IsTerminal(t.In) {
			return cli.Usage("nothing was done: there is no terminal to ask on; look at the plan, and give --yes")
		}
		if err := confirm(t, "Do this?", false); err != nil {
			return err
		}
	}
	res, err := p.Apply(ctx, c, func(s plan.Step) { t.Notef("done    %s %s %s\n", s.Act, s.Kind, cli.Clean(s.Name)) })
	if o.JSON() {
		if e := t.JSON(res); err == nil {
			err = e
		}
	} else {
		for _, u := range res.Codes {
			t.Printf("%s %s\n", cli.Clean(u.Name), cli.Clean(u.Code))
		}
	}
	if len(res.Codes) > 0 {
		t.Notef("user and one-time code, which sets the first password: pass each to its user; it is not shown again (fairlead users code NAME makes another)\n")
	}
	if err != nil && res.Failed != nil {
		t.Notef("failed  %s\n", cli.Clean(res.Failed.String()))
		for _, s := range res.Open {
			t.Notef("open    %s\n", cli.Clean(s.String()))
		}
		t.Notef("%d of %d steps are done, and stay; the same command goes on from here\n", len(res.Done), len(p.Steps))
	}
	if err != nil {
		return err
	}
	t.Notef("%d steps are done\n", len(res.Done))
	return nil
}
