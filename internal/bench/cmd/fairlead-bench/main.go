package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"github.com/fairleadhq/fairlead/internal/bench"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/wan"
)

type grammar struct {
	Run  runCommand  `cmd:"" default:"withargs" help:"Measure, print the table and keep the raw values."`
	Soak soakCommand `cmd:"" help:"Load the programs for a long time, and fail when what they hold grows. Linux alone."`
}

type runCommand struct {
	Bin           string        `default:"bin" type:"existingdir" placeholder:"DIR" help:"Folder of the programs that make build made."`
	Quick         bool          `help:"A fraction of a second for each cell: shows that everything works, and no more."`
	Peers         bool          `help:"Measure other programs, too: those on PATH, or where FAIRLEAD_BENCH_FRPS and the like say."`
	Only          string        `placeholder:"REGEX" help:"Only what matches, as CELL/SYSTEM or FIGURE/SYSTEM: '^down1/', 'query|/direct'."`
	Reps          int           `placeholder:"N" help:"Repetitions; 5, or 1 with --quick."`
	Cell          time.Duration `placeholder:"3s" help:"Load of one cell."`
	Agents        int           `placeholder:"N" help:"Idle agents, and those that come back in the storm; 1000."`
	WAN           bool          `name:"wan" help:"Measure over an emulated wide-area line, with direct, tls-pair, fairlead-gateway and frp: as root on Linux."`
	Congestion    string        `default:"cubic" placeholder:"NAME" help:"With --wan: TCP congestion control of both ends, such as cubic or bbr."`
	OwnCongestion string        `default:"system" placeholder:"SETTING" help:"With --wan: what relay.yaml and agent.yaml say of it; auto is what they say when nothing is set."`
	JSON          string        `name:"json" type:"path" placeholder:"FILE" help:"Where the raw values go; dist/bench/TIME.json."`
	Dir           string        `type:"path" placeholder:"DIR" help:"Folder for logs and state; kept. Without it, a temporary one."`
}

func (c *runCommand) Run(ctx context.Context, t *cli.Term) error {
	o := bench.Standard()
	if c.Quick {
		o = bench.Quick()
	}
	if c.Reps > 0 {
		o.Reps = c.Reps
	}
	if c.Cell > 0 {
		o.Cell = c.Cell
	}
	if c.Agents > 0 {
		o.Agents = c.Agents
	}
	if c.Only != "" {
		re, err := regexp.Compile(c.Only)
		if err != nil {
			return cli.Usage("--only %s", err)
		}
		o.Only = re
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if c.WAN && !wan.Isolated() {
		code, err := wan.Isolate(ctx, append([]string{self}, os.Args[1:]...))
		if err == nil && code != 0 {
			os.Exit(code) // it has said why
		}
		return err
	}
	o.WAN, o.Congestion, o.OwnCongestion = c.WAN, c.Congestion, c.OwnCongestion
	o.Bin, o.Self, o.Dir, o.Peers, o.Progress = c.Bin, []string{self}, c.Dir, c.Peers, t.Err
	report, err := bench.Run(ctx, o)
	if report == nil {
		return err
	}
	file := c.JSON
	if file == "" {
		file = filepath.Join("dist", "bench", report.Time.UTC().Format("20060102-150405")+".json")
	}
	if err := errors.Join(err, report.Save(file), report.Print(t.Out)); err != nil {
		return err
	}
	t.Notef("raw values: %s\n", file)
	return nil
}

type soakCommand struct {
	For       time.Duration `default:"30m" placeholder:"30m" help:"How long the load runs."`
	Every     time.Duration `default:"10s" placeholder:"10s" help:"Between two looks at memory, descriptors and goroutines."`
	Tolerance float64       `default:"0.1" placeholder:"0.1" help:"By which part the last third of the time may be above the middle third."`
	Bin       string        `default:"bin" type:"existingdir" placeholder:"DIR" help:"Folder of the programs that make build made."`
	JSON      string        `name:"json" type:"path" placeholder:"FILE" help:"Where each look goes; dist/bench/soak-TIME.json."`
	Dir       string        `type:"path" placeholder:"DIR" help:"Folder for logs and state; kept. Without it, a temporary one."`
}

func (c *soakCommand) Run(ctx context.Context, t *cli.Term) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	report, err := bench.Soak(ctx, bench.SoakOptions{Bin: c.Bin, Self: []string{self}, Dir: c.Dir, For: c.For, Every: c.Every, Tolerance: c.Tolerance, Progress: t.Err})
	if report == nil {
		return err
	}
	file := c.JSON
	if file == "" {
		file = filepath.Join("dist", "bench", "soak-"+report.Time.UTC().Format("20060102-150405")+".json")
	}
	err = errors.Join(err, report.Save(file), report.Print(t.Out))
	t.Notef("each look: %s\n", file)
	return err
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "role" {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		if err := bench.Role(ctx, os.Args[2:]); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "fairlead-bench:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(cli.Run(cli.Program{Name: "fairlead-bench", Description: "Measures Fairlead's data path beside baselines and peers.", Grammar: &grammar{}},
		os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
