package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/relay/client"
)

// SoakOptions say how a soak runs: mixed load through the real programs, and a look at what they hold.
type SoakOptions struct {
	Bin  string   // folder of the built programs
	Self []string // command line of this program, which takes "role NAME OPTIONS" (see Role)
	Dir  string   // folder for everything that the run writes; "" makes one and removes it

	For       time.Duration // how long the load runs
	Every     time.Duration // between two looks
	Tolerance float64       // by which part the last third may be above the middle one; 0.1 is a tenth
	Progress  io.Writer     // each look; nil is nobody
}

// Look is what relay and agent held at one time.
type Look struct {
	Seconds float64            `json:"seconds"` // since the load began
	Held    map[string]float64 `json:"held"`
}

// SoakReport is what a soak saw.
type SoakReport struct {
	Time      time.Time         `json:"time"`
	Machine   map[string]string `json:"machine"`
	For       string            `json:"for"`
	Tolerance float64           `json:"tolerance"`
	Looks     []Look            `json:"looks"`
	Acts      map[string]int    `json:"acts"`   // that were done, by kind of load
	Failed    map[string]int    `json:"failed"` // that were not
	Failures  []string          `json:"failures,omitempty"`
	Missing   []string          `json:"missing,omitempty"` // load that could not be had, and why
	Grown     []string          `json:"grown,omitempty"`
}

// What is looked at, and what may come on top of the tolerance: a small number that doubles is no leak.
var soakSlack = []struct {
	name, unit string
	slack      float64
}{
	{"relay_memory", "KiB", 8 << 10}, {"agent_memory", "KiB", 8 << 10},
	{"relay_descriptors", "", 10}, {"agent_descriptors", "", 10},
	{"relay_goroutines", "", 40},
}

// Soak runs mixed load for as long as o says. The report is there with an error, too: something grew, or more than one act in
// a hundred failed.
func Soak(ctx context.Context, o SoakOptions) (_ *SoakReport, err error) {
	if o.For <= 0 || o.Every <= 0 || o.Every*6 > o.For || o.Tolerance <= 0 {
		return nil, errors.New("a soak wants a time of six looks at least, and a tolerance above 0")
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	quick := Quick()
	quick.Bin, quick.Self, quick.Dir, quick.Cell = o.Bin, o.Self, o.Dir, time.Second
	b := newBench(quick)
	defer b.metrics.CloseIdleConnections()
	if b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "flsoak"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return nil, err
	}
	r := &SoakReport{Time: time.Now(), Machine: machine(), For: o.For.String(), Tolerance: o.Tolerance, Acts: map[string]int{}, Failed: map[string]int{}}
	target, err := b.startTarget(ctx)
	if err != nil {
		return nil, err
	}
	defer target.stop()
	if err := b.startDatabase(ctx); err != nil {
		r.Missing = append(r.Missing, "queries: PostgreSQL: "+clip(err.Error(), 200))
	}
	if b.pg != nil {
		defer func() { err = errors.Join(err, b.pg.end()) }()
	}
	dir, err := b.folder("site")
	if err != nil {
		return nil, err
	}
	s, err := b.newSite(ctx, dir, 0, false)
	if err != nil {
		return nil, err
	}
	defer s.stop()
	entry, err := s.gateway(ctx, "target")
	if err != nil {
		return nil, err
	}
	err = r.run(ctx, o, s, r.loads(s, entry))
	return r, err
}

// load is one kind of act, done again and again.
type load struct {
	name  string
	every time.Duration // from the begin of one to the begin of the next, give or take a half
	times int           // at a time
	act   func(ctx context.Context) error
}

func (r *SoakReport) loads(s *site, entry string) []load {
	b := s.b
	list := []load{
		{"connections", 50 * time.Millisecond, 4, func(ctx context.Context) error { return once(ctx, entry) }},
		{"pings", time.Second, 4, func(ctx context.Context) error {
			_, err := paced(ctx, entry, 20*time.Millisecond, 10*time.Second)
			return err
		}},
		{"down", 3 * time.Second, 2, func(ctx context.Context) error { _, _, err := bulkDown(ctx, entry, 1, time.Second); return err }},
		{"up", 3 * time.Second, 1, func(ctx context.Context) error { _, _, err := bulkUp(ctx, entry, 1, time.Second); return err }},
		{"files", 2 * time.Second, 2, func(ctx context.Context) error { return soakFile(ctx, s.client) }},
		{"refusals", 500 * time.Millisecond, 1, func(ctx context.Context) error {
			if _, err := s.client.Stat(ctx, "nosuch", "", ""); err == nil {
				return errors.New("a connection that does not exist has an answer")
			}
			return nil
		}},
	}
	if b.pg != nil {
		list = append(list, load{"queries", 2 * time.Second, 2, func(ctx context.Context) error { _, err := b.askAPI(ctx, s.client); return err }})
	}
	return list
}

// soakFile writes a file, reads it back and deletes it.
func soakFile(ctx context.Context, c *client.Client) error {
	const size = 4 << 20
	name := fmt.Sprintf("soak-%016x.bin", rand.Uint64())
	if _, err := c.Put(ctx, "bulk", name, io.LimitReader(zeroes{}, size), size, client.PutOptions{}); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	f, err := c.Get(ctx, "bulk", name, client.GetOptions{})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	n, err := io.Copy(io.Discard, f)
	if err = errors.Join(err, f.Close()); err != nil || n != size {
		return fmt.Errorf("get: %d bytes of %d: %w", n, size, err)
	}
	return c.Delete(ctx, "bulk", name, "")
}

func (r *SoakReport) run(ctx context.Context, o SoakOptions, s *site, loads []load) error {
	lctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	var mu sync.Mutex // guards the report's counts
	for _, l := range loads {
		for range l.times {
			wg.Go(func() {
				for {
					begin := time.Now()
					err := l.act(lctx)
					if lctx.Err() != nil {
						return
					}
					mu.Lock()
					if err != nil {
						if r.Failed[l.name]++; len(r.Failures) < 20 {
							r.Failures = append(r.Failures, l.name+": "+clip(err.Error(), 200))
						}
					} else {
						r.Acts[l.name]++
					}
					mu.Unlock()
					if wait(lctx, l.every/2+rand.N(l.every)-time.Since(begin)) != nil {
						return
					}
				}
			})
		}
	}
	begin := time.Now()
	tick := time.NewTicker(o.Every)
	defer tick.Stop()
	for time.Since(begin) < o.For {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.relay.done:
			return fmt.Errorf("the relay has ended: %s", s.relay.tail())
		case <-s.agent.done:
			return fmt.Errorf("the agent has ended: %s", s.agent.tail())
		case <-tick.C:
		}
		held, err := s.held(ctx)
		if err != nil {
			return err
		}
		r.Looks = append(r.Looks, Look{time.Since(begin).Seconds(), held})
		fmt.Fprintf(o.Progress, "%s of %s:%s\n", time.Since(begin).Round(time.Second), o.For, told(held))
	}
	stop()
	wg.Wait()
	return r.judge()
}

func told(held map[string]float64) string {
	var b strings.Builder
	for _, k := range soakSlack {
		fmt.Fprintf(&b, " %s %s", k.name, number(held[k.name]))
	}
	return b.String()
}

// held reads what relay and agent hold. The agent listens on nothing, so its goroutines are its own.
func (s *site) held(ctx context.Context) (map[string]float64, error) {
	held := map[string]float64{}
	var err error
	for name, p := range map[string]*process{"relay": s.relay, "agent": s.agent} {
		if held[name+"_memory"], err = dirty(p.pid()); err != nil {
			return nil, err
		}
		if held[name+"_descriptors"], err = descriptors(p.pid()); err != nil {
			return nil, err
		}
	}
	held["relay_goroutines"], err = s.metric(ctx, "go_goroutines")
	return held, err
}

// judge says what has grown, and whether too much failed.
func (r *SoakReport) judge() error {
	var faults []error
	for _, k := range soakSlack {
		var values []float64
		for _, l := range r.Looks {
			values = append(values, l.Held[k.name])
		}
		if middle, last, grown := growth(values, r.Tolerance, k.slack); grown {
			said := strings.TrimSpace(fmt.Sprintf("%s: %s in the last third of the time, %s in the middle third %s", k.name, number(last), number(middle), k.unit))
			r.Grown = append(r.Grown, said)
			faults = append(faults, errors.New("it grows: "+said))
		}
	}
	for name, n := range r.Failed {
		if n*100 > r.Acts[name] {
			faults = append(faults, fmt.Errorf("%s: %d failed, and %d were done; the first failure of all: %s", name, n, r.Acts[name], r.Failures[0]))
		}
	}
	if len(r.Acts) == 0 {
		faults = append(faults, errors.New("nothing was done"))
	}
	return errors.Join(faults...)
}

// growth holds the last third of a series against its middle third, by their medians: what a program takes until it is warm is
// in the first. Thirds of medians, because a collector of garbage makes teeth, and a median does not see them.
func growth(values []float64, tolerance, slack float64) (middle, last float64, grown bool) {
	n := len(values) / 3
	if n == 0 {
		return 0, 0, false
	}
	middle, last = median(values[len(values)-2*n:len(values)-n]), median(values[len(values)-n:])
	return middle, last, last > middle*(1+tolerance)+slack
}

// Save writes the report as JSON; the folder is made.
func (r *SoakReport) Save(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

// Print writes what was held in each third, and what was done.
func (r *SoakReport) Print(w io.Writer) error {
	rows := [][]string{{"held", "unit", "first third", "middle third", "last third", "most"}}
	for _, k := range soakSlack {
		var v []float64
		for _, l := range r.Looks {
			v = append(v, l.Held[k.name])
		}
		n := len(v) / 3
		if n == 0 {
			continue
		}
		rows = append(rows, []string{k.name, k.unit, number(median(v[:len(v)-2*n])), number(median(v[len(v)-2*n : len(v)-n])), number(median(v[len(v)-n:])), number(slices.Max(v))})
	}
	if err := grid(w, rows); err != nil {
		return err
	}
	var names []string
	for name := range r.Acts {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("\n")
	for _, name := range names {
		fmt.Fprintf(&b, "- %s: %d done, %d failed\n", name, r.Acts[name], r.Failed[name])
	}
	for _, m := range r.Missing {
		fmt.Fprintf(&b, "- not there: %s\n", m)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(&b, "- failed: %s\n", f)
	}
	fmt.Fprintf(&b, "- %d looks in %s; the last third may be %s %% above the middle one\n", len(r.Looks), r.For, number(100*r.Tolerance))
	_, err := io.WriteString(w, b.String())
	return err
}
