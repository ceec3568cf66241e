package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/agent"
	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/relay/client"
)

// settled gives the written memory of each side once it has had time to settle.
func (b *bench) settled(ctx context.Context, sides ...[]*process) (kb []float64, err error) {
	if err := wait(ctx, b.opt.Settle); err != nil {
		return nil, err
	}
	for _, ps := range sides {
		v, err := dirty(pids(ps)...)
		if err != nil {
			return nil, err
		}
		kb = append(kb, v)
	}
	return kb, nil
}

// idleStreams opens streams through fresh processes, uses each once and leaves it open: what does each side's memory grow
// by, a stream?
func idleStreams(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
	if i.open == nil {
		i.open = func(ctx context.Context, _ int) (io.Closer, error) {
			c, err := dial(ctx, i.raw)
			if err != nil {
				return nil, err
			}
			return opened(c)
		}
	}
	before, err := b.settled(ctx, i.relay, i.agent)
	if err != nil {
		return err
	}
	streams := make([]io.Closer, b.opt.Streams)
	defer func() {
		for _, c := range streams {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	const workers = 8
	if err := several(workers, func(w int) error {
		for k := w; k < len(streams); k += workers {
			c, err := i.open(ctx, k)
			if err != nil {
				return fmt.Errorf("stream %d: %w", k, err)
			}
			streams[k] = c
		}
		return nil
	}); err != nil {
		return err
	}
	after, err := b.settled(ctx, i.relay, i.agent)
	if err != nil {
		return err
	}
	for side, figure := range []string{"stream_relay", "stream_agent"} {
		s.Values[figure] = (after[side] - before[side]) / float64(len(streams))
	}
	return nil
}

// manyAgents runs many agents against a fresh relay: what does one cost while idle, and how soon are all back after the
// relay was killed and started again?
func manyAgents(ctx context.Context, b *bench, _ string, _ *instance, s *Sample) error {
	site, err := b.swarmSite(ctx)
	if err != nil {
		return err
	}
	if err := site.restart(ctx); err != nil {
		return err
	}
	before, err := b.settled(ctx, []*process{site.relay}, []*process{site.agent})
	if err != nil {
		return err
	}
	s.Values["agent_process"] = before[1]
	n := b.opt.Agents
	watched := []*process{site.relay, site.agent}
	for first := 0; first < n; first += swarmShare {
		o := swarmOptions{Config: site.path("swarm.yaml"), Dir: site.path("swarm"), First: first, Agents: min(swarmShare, n-first)}
		swarm, err := b.startRole(site.dir, fmt.Sprintf("swarm-%d", first), "swarm", o, b.startNear)
		if err != nil {
			return err
		}
		defer swarm.kill()
		watched = append(watched, swarm)
	}
	if err := every(ctx, 5*time.Minute, func(ctx context.Context) error { return site.connected(ctx, n+1) }, watched...); err != nil {
		return fmt.Errorf("%d agents connect: %w", n, err)
	}
	after, err := b.settled(ctx, []*process{site.relay})
	if err != nil {
		return err
	}
	s.Values["agent_relay"] = (after[0] - before[0]) / float64(n)
	return b.storm(ctx, site, watched[2:], s)
}

// storm kills the relay under all its agents and starts it again.
func (b *bench) storm(ctx context.Context, site *site, swarm []*process, s *Sample) error {
	all := b.opt.Agents + 1
	most := all - all/100
	begin := time.Now()
	site.relay.kill()
	if err := site.startRelay(ctx); err != nil {
		return err
	}
	// Requests to an agent that is back go on while the others come.
	var trips []float64
	var asking sync.WaitGroup
	actx, end := context.WithCancel(ctx)
	defer asking.Wait()
	defer end()
	asking.Go(func() {
		if site.answers(actx) != nil {
			return
		}
		for actx.Err() == nil {
			t := time.Now()
			if _, err := site.client.Stat(actx, "bulk", "", ""); err == nil {
				trips = append(trips, time.Since(t).Seconds())
			}
			if wait(actx, 10*time.Millisecond) != nil {
				return
			}
		}
	})
	for _, step := range []struct {
		figure string
		want   int
	}{{"storm_99", most}, {"storm_all", all}} {
		if err := every(ctx, 5*time.Minute, func(ctx context.Context) error { return site.connected(ctx, step.want) }, append(swarm, site.relay, site.agent)...); err != nil {
			return fmt.Errorf("%d agents come back: %w", step.want, err)
		}
		s.Values[step.figure] = time.Since(begin).Seconds()
	}
	end()
	asking.Wait()
	if len(trips) == 0 {
		s.note("storm_p99", "all were back before one request was answered")
	} else {
		s.Values["storm_p99"] = quantile(trips, 0.99) * 1e3
	}
	return nil
}

// connected asks the relay's metrics whether as many agents have a tunnel.
func (s *site) connected(ctx context.Context, want int) error {
	have, err := s.metric(ctx, "fairlead_agents_connected")
	if err == nil && int(have) < want {
		err = fmt.Errorf("%d agents of %d are connected", int(have), want)
	}
	return err
}

// metric reads one of the relay's metrics that has no labels.
func (s *site) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.health+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	resp, err := s.b.metrics.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			_, _ = io.Copy(io.Discard, resp.Body)
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("the relay's metrics do not tell %s", name)
}

// swarmSite is a site of its own, with as many agents enrolled as the run wants, in a group that serves no request.
func (b *bench) swarmSite(ctx context.Context) (*site, error) {
	if b.swarm != nil {
		return b.swarm, nil
	}
	dir, err := b.folder("swarm-site")
	if err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, dir, 0, false)
	if err != nil {
		return nil, err
	}
	if err := s.enrolSwarm(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("enrol %d agents: %w", b.opt.Agents, err)
	}
	b.swarm = s
	return s, nil
}

func (s *site) enrolSwarm(ctx context.Context) error {
	host, port, err := splitAddr(s.b.target)
	if err != nil {
		return err
	}
	// Each profile is part of what a relay holds of an agent; these are as many as a small site has.
	yaml := fmt.Sprintf("version: 1\ntcp:\n  a: {host: %s, port: %s}\n  b: {host: %s, port: %s}\n", host, port, host, port)
	if err := os.WriteFile(s.path("swarm.yaml"), []byte(yaml), 0o600); err != nil {
		return err
	}
	if err := os.Mkdir(s.path("swarm"), 0o700); err != nil {
		return err
	}
	if _, err := s.client.CreateGroup(ctx, client.NewGroup{Name: "swarm"}); err != nil {
		return err
	}
	const workers = 4
	return several(workers, func(w int) error {
		for k := w; k < s.b.opt.Agents; k += workers {
			made, err := s.client.CreateJoinToken(ctx, client.NewJoinToken{Group: "swarm"})
			if err != nil {
				return err
			}
			token, err := mtls.ParseJoinToken(made.Token)
			if err != nil {
				return err
			}
			name := swarmName(k)
			if _, err := enroll.Enroll(ctx, enroll.Request{Dir: filepath.Join(s.path("swarm"), name), Addrs: token.Addrs, Pin: token.Pin,
				Secret: token.SecretText(), Name: name, Version: "bench", Dial: dialer.DialContext}); err != nil {
				return err
			}
		}
		return nil
	})
}

func swarmName(k int) string { return fmt.Sprintf("agent-%05d", k) }

// swarmShare is how many agents one process runs: each holds some five files.
const swarmShare = 2500

// swarmOptions is the argument of the role "swarm".
type swarmOptions struct {
	Config, Dir   string
	First, Agents int
}

// runSwarm runs many agents in one process until ctx ends, each with its own identity and audit log.
func runSwarm(ctx context.Context, o swarmOptions) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	starting := make(chan struct{}, 64)
	for k := range o.Agents {
		starting <- struct{}{}
		a, err := agent.New(agent.Options{ConfigFile: o.Config, DataDir: filepath.Join(o.Dir, swarmName(o.First+k)), Version: "bench", Poll: time.Hour})
		if err != nil {
			cancel(err)
			break
		}
		wg.Go(func() {
			if err := a.Run(ctx); err != nil {
				cancel(err)
			}
		})
		wg.Go(func() {
			select {
			case <-a.Ready():
			case <-ctx.Done():
			}
			<-starting
		})
	}
	<-ctx.Done()
	wg.Wait()
	return context.Cause(ctx)
}
