package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/fairleadhq/fairlead/internal/wan"
	"github.com/fairleadhq/fairlead/relay/client"
)

// system is one way to the target.
type system struct {
	SystemInfo
	start func(ctx context.Context, dir string) (*instance, error)
}

// instance is a system that runs.
type instance struct {
	raw string         // entrance to the target, host:port; "" is none
	pg  string         // entrance to PostgreSQL
	api *client.Client // Fairlead's API
	// Processes: relay and agent side, and what the caller runs. The direct way has none.
	relay, agent, front []*process
	// open opens the k-th idle stream, when it is not by raw.
	open func(ctx context.Context, k int) (io.Closer, error)
	stop func()
}

func pids(lists ...[]*process) (ids []int) {
	for _, l := range lists {
		for _, p := range l {
			ids = append(ids, p.pid())
		}
	}
	return ids
}

func (i *instance) pids() []int { return pids(i.relay, i.agent, i.front) }

func (i *instance) all() []*process {
	return append(append(append([]*process{}, i.relay...), i.agent...), i.front...)
}

// end stops what runs: who asks first, then who answers, so that nobody drains for long.
func (i *instance) end() {
	for _, list := range [][]*process{i.front, i.agent, i.relay} {
		for _, p := range list {
			p.stop()
		}
	}
	if i.stop != nil {
		i.stop()
	}
}

// ready waits until a byte has gone to the target and back.
func (i *instance) ready(ctx context.Context) error {
	return every(ctx, readyTime, func(ctx context.Context) error {
		c, closeConn, err := open(ctx, i.raw)
		if err != nil {
			return err
		}
		defer closeConn()
		return echo(c)
	}, i.all()...)
}

// roleCommand is the command line that makes this program take a role.
func (b *bench) roleCommand(name string, options any) ([]string, error) {
	arg, err := json.Marshal(options)
	return append(append([]string{}, b.opt.Self...), "role", name, string(arg)), err
}

func (b *bench) startNear(dir, name string, argv ...string) (*process, error) {
	return start(dir, name, nil, argv...)
}

func (b *bench) startRole(dir, process, role string, options any, begin func(dir, name string, argv ...string) (*process, error)) (*process, error) {
	argv, err := b.roleCommand(role, options)
	if err != nil {
		return nil, err
	}
	return begin(dir, process, argv...)
}

// direct is the way without anything between.
func (b *bench) direct() *system {
	return &system{SystemInfo{Name: sysDirect, What: "load generator to target, nothing between"}, func(context.Context, string) (*instance, error) {
		return &instance{raw: b.target, pg: b.pgAddr()}, nil
	}}
}

// pair is a bare two-hop pair, plain or with TLS 1.3.
func (b *bench) pair(name, what string, secure bool) *system {
	return &system{SystemInfo{Name: name, What: what}, func(ctx context.Context, dir string) (*instance, error) {
		i := &instance{}
		inner, err := b.ports.take()
		if err != nil {
			return nil, err
		}
		r := relayOptions{Agents: b.near(inner)}
		a := agentOptions{Relay: r.Agents, Pool: 16}
		if secure {
			r.Certs, a.Certs = b.certs, b.certs
		}
		for _, t := range []struct {
			to  string
			way *string
		}{{b.target, &i.raw}, {b.pgAddr(), &i.pg}} {
			if t.to == "" {
				continue
			}
			port, err := b.ports.take()
			if err != nil {
				return nil, err
			}
			*t.way = loopback(port)
			r.Clients, a.Targets = append(r.Clients, *t.way), append(a.Targets, t.to)
		}
		relay, err := b.startRole(dir, name+"-relay", "pair-relay", r, b.startNear)
		if err != nil {
			return nil, err
		}
		i.relay = []*process{relay}
		agent, err := b.startRole(dir, name+"-agent", "pair-agent", a, b.startFar)
		if err != nil {
			i.end()
			return nil, err
		}
		i.agent = []*process{agent}
		if err := i.ready(ctx); err != nil {
			i.end()
			return nil, err
		}
		return i, nil
	}}
}

// Role runs a process of the harness: args are a role's name and its options. It ends with ctx.
func Role(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("a role takes its name and its options")
	}
	options := func(into any) error { return json.Unmarshal([]byte(args[1]), into) }
	switch args[0] {
	case "target":
		var o targetOptions
		if err := options(&o); err != nil {
			return err
		}
		return runTarget(ctx, o)
	case "pair-relay":
		var o relayOptions
		if err := options(&o); err != nil {
			return err
		}
		return runPairRelay(ctx, o)
	case "pair-agent":
		var o agentOptions
		if err := options(&o); err != nil {
			return err
		}
		return runPairAgent(ctx, o)
	case "line":
		return wan.Serve(ctx)
	case "swarm":
		var o swarmOptions
		if err := options(&o); err != nil {
			return err
		}
		return runSwarm(ctx, o)
	}
	return fmt.Errorf("there is no role %q", args[0])
}

// folder makes a folder of the run's own.
func (b *bench) folder(name string) (string, error) {
	dir := filepath.Join(b.dir, name)
	return dir, os.MkdirAll(dir, 0o700)
}

// readyTime is how long a system may take to come up.
const readyTime = 30 * time.Second
