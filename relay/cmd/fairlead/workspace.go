package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/plan"
)

// planFlags name the files of a workspace.
type planFlags struct {
	File  []string `short:"f" required:"" sep:"none" type:"path" placeholder:"FILE" help:"File of the workspace. May be given several times: together they are one whole."`
	Prune bool     `help:"Delete what the relay has and the files' sections do not name."`
	cli.Output
}

// make reads the files before the relay is asked.
func (k *planFlags) make(ctx context.Context, t *cli.Term, r *relayFlags) (*client.Client, *plan.Plan, error) {
	w, err := plan.Load(k.File...)
	if err != nil {
		return nil, nil, badFiles(err)
	}
	if r.Workspace == "" {
		r.Workspace = w.Workspace
	}
	c, err := r.open(t)
	if err != nil {
		return nil, nil, err
	}
	p, err := plan.Make(ctx, c, w, k.Prune)
	if err != nil {
		c.Close()
		return nil, nil, badFiles(err)
	}
	return c, p, nil
}

type workspacePlan struct{ planFlags }

func (*workspacePlan) Examples() []string {
	return []string{"fairlead workspace plan -f workspace.yaml", "fairlead workspace plan -f people.yaml -f connections.yaml --prune"}
}

func (k *workspacePlan) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, p, err := k.make(ctx, t, r)
	if err != nil {
		return err
	}
	defer c.Close()
	if k.JSON() {
		return t.JSON(p)
	}
	t.Printf("%s", planText(p))
	return nil
}

// stepsText writes the steps of a plan for people, and counts them by what they do.
func stepsText(b *strings.Builder, steps []plan.Step) map[string]int {
	count := map[string]int{}
	for _, s := range steps {
		count[s.Act]++
		fmt.Fprintf(b, "%-7s %s %s\n", s.Act, s.Kind, cli.Clean(s.Name))
		for _, d := range s.Detail {
			fmt.Fprintf(b, "            %s\n", cli.Clean(d))
		}
	}
	return count
}

// planText shows a plan to people.
func planText(p *plan.Plan) string {
	var b strings.Builder
	count := stepsText(&b, p.Steps)
	for _, l := range p.Left {
		fmt.Fprintf(&b, "left    %s\n", cli.Clean(l))
	}
	for _, l := range p.Over {
		fmt.Fprintf(&b, "over    grant %s: its end has come; take it out of the file\n", cli.Clean(l))
	}
	fmt.Fprintf(&b, "workspace %s: %d to create, %d to change, %d to delete, %d unchanged\n", cli.Clean(p.Workspace), count[plan.Create], count[plan.Change], count[plan.Delete], p.Unchanged)
	if len(p.Left) > 0 {
		fmt.Fprintf(&b, "%d that the files do not name are left; --prune deletes them, but not yourself\n", len(p.Left))
	}
	return b.String()
}

type workspaceApply struct {
	planFlags
	Yes bool `short:"y" help:"Do not ask. Wanted where there is no terminal to ask on."`
}

func (*workspaceApply) Examples() []string {
	return []string{"fairlead workspace apply -f workspace.yaml", "fairlead workspace apply -f workspace.yaml --prune --yes"}
}

// Run shows the plan on standard error, so that what is shown once stands alone on standard output.
func (k *workspaceApply) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, p, err := k.make(ctx, t, r)
	if err != nil {
		return err
	}
	defer c.Close()
	t.Notef("%s", planText(p))
	return takeSteps(ctx, t, c, p, k.Yes, k.Output)
}

type workspaceExport struct{}

func (*workspaceExport) Examples() []string {
	return []string{"fairlead workspace export > workspace.yaml"}
}

func (k *workspaceExport) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	b, err := plan.Export(ctx, c)
	if err != nil {
		return err
	}
	t.Printf("%s", cli.CleanLines(string(b)))
	return nil
}

// badFiles gives faults of files the status of what was given wrongly.
func badFiles(err error) error {
	var faults config.Faults
	if errors.As(err, &faults) {
		return cli.BadConfig(faults.Error(), "nothing was changed")
	}
	return err
}
