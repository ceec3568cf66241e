package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/wan"
)

// Options say what to measure, and how long.
type Options struct {
	Bin  string   // folder of the built programs
	Self []string // command line of this program, which takes "role NAME OPTIONS" (see Role)
	Dir  string   // folder for everything that the run writes; "" makes one and removes it

	Reps     int            // repetitions
	Cell     time.Duration  // load of one cell
	Settle   time.Duration  // before memory is read
	Rows     int            // of the large result
	Scale    int            // of pgbench's tables
	FileSize int64          // bytes
	Streams  int            // idle streams
	Agents   int            // idle agents, and those of the storm
	Only     *regexp.Regexp // cells and systems, as CELL/SYSTEM or FIGURE/SYSTEM; nil is all
	Peers    bool           // look for other programs, too
	Progress io.Writer      // what is being measured; nil is nobody

	// WAN measures over an emulated wide-area line, and other figures than without it. It wants wan.Isolated.
	WAN           bool
	Congestion    string // TCP congestion control of both ends of the line; "" is cubic
	OwnCongestion string // what relay.yaml and agent.yaml say of it; "" is "system"
}

// Standard is a full run.
func Standard() Options {
	return Options{Reps: 5, Cell: 3 * time.Second, Settle: 3 * time.Second, Rows: 5_000_000, Scale: 5, FileSize: 1 << 30, Streams: 1000, Agents: 1000}
}

// Quick is a run that shows that everything works, and no more.
func Quick() Options {
	return Options{Reps: 1, Cell: 300 * time.Millisecond, Settle: 300 * time.Millisecond, Rows: 20_000, Scale: 1, FileSize: 8 << 20, Streams: 20, Agents: 5}
}

// bench is a run.
type bench struct {
	opt     Options
	dir     string
	certs   string
	target  string
	ports   ports
	line    *wan.Line // nil: everything is on loopback
	metrics *http.Client
	report  *Report

	pg             *database
	pgMissing      string // why there is none
	pgbench        string
	pgbenchMissing string
	site           *site // shared by Fairlead's entrances
	quic           *site // the same, by QUIC
	swarm          *site
}

var dialer = &net.Dialer{Timeout: 10 * time.Second}

func newBench(o Options) *bench {
	return &bench{opt: o, dir: o.Dir, metrics: &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}},
		report: &Report{Options: map[string]any{}, Machine: map[string]string{}}}
}

// startTarget starts what all load goes to, and waits for it.
func (b *bench) startTarget(ctx context.Context) (*process, error) {
	port, err := b.ports.take()
	if err != nil {
		return nil, err
	}
	b.target = b.far(port)
	t, err := b.startRole(b.dir, "target", "target", targetOptions{Listen: b.target}, b.startFar)
	if err != nil {
		return nil, err
	}
	if err := (&instance{raw: b.target, front: []*process{t}}).ready(ctx); err != nil {
		t.stop()
		return nil, fmt.Errorf("the target: %w", err)
	}
	return t, nil
}

// Run measures. It stops what it started, also when ctx ends; then the report holds what was measured until then.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	begin := time.Now()
	b := newBench(o)
	b.report = &Report{Time: begin, Machine: machine(), Options: map[string]any{"reps": o.Reps, "cell": o.Cell.String(), "settle": o.Settle.String(), "rows": o.Rows,
		"scale": o.Scale, "file_bytes": o.FileSize, "streams": o.Streams, "agents": o.Agents, "peers": o.Peers}}
	for _, f := range figuresOf(o.WAN) {
		b.report.Figures = append(b.report.Figures, FigureInfo{f.name, f.unit, f.what})
	}
	if o.Only != nil {
		b.report.Options["only"] = o.Only.String()
	}
	defer b.metrics.CloseIdleConnections()
	if b.dir = o.Dir; b.dir == "" {
		if b.dir, err = os.MkdirTemp("", "flbench"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	}
	if b.dir, err = filepath.Abs(b.dir); err != nil {
		return nil, err
	}
	for _, name := range []string{"fairlead", "fairlead-agent", "fairlead-relay"} {
		if _, err := os.Stat(b.program(name)); err != nil {
			return nil, fmt.Errorf("the programs are not built: %w", err)
		}
	}
	if out, err := run(ctx, nil, b.program("fairlead"), "version"); err == nil {
		b.report.Machine["programs"], _, _ = strings.Cut(out, "\n")
	}
	b.certs = filepath.Join(b.dir, "certs")
	if err := makeCerts(b.certs); err != nil {
		return nil, err
	}
	b.report.Machine["fsync"] = syncTime(b.dir)
	if o.WAN {
		if err := b.openLine(); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, b.closeLine()) }()
	}
	t, err := b.startTarget(ctx)
	if err != nil {
		return nil, err
	}
	defer t.stop()
	if o.WAN {
		b.pgMissing = "no database is at the far end of the line"
	} else if err := b.startDatabase(ctx); err != nil {
		b.pgMissing = "PostgreSQL: " + err.Error()
	}
	if b.pg != nil {
		defer func() { err = errors.Join(err, b.pg.end()) }()
		if b.pgMissing != "" { // it runs and could not be filled
			return nil, errors.New(b.pgMissing)
		}
	}
	defer func() {
		for _, s := range []*site{b.site, b.quic, b.swarm} {
			if s != nil {
				s.stop()
			}
		}
		b.report.Took = time.Since(begin).Round(time.Second).String()
	}()
	return b.report, b.measure(ctx)
}

// sharedFolder names the folder of processes that live through the run.
const sharedFolder = "load"

func (b *bench) systems(ctx context.Context) []*system {
	list := []*system{b.direct(), b.pair(sysPlain, "bare two-hop pair, TCP, pooled, spliced", false),
		b.pair(sysTLS, "bare two-hop pair, mutual TLS 1.3, pooled, tuned", true),
		b.fairlead(sysConnect, "Fairlead through the command fairlead connect: a process more, and TLS twice")}
	gateway := b.fairlead(sysGateway, "Fairlead through a gateway port of the relay")
	quic := b.fairlead(sysQUIC, "the same, where agent and relay speak QUIC")
	if !b.hasGateways(ctx) {
		gateway.Missing = "this build has no gateway ports (fairlead connections create --gateway)"
		quic.Missing = gateway.Missing
	}
	list = append(list, gateway, quic, b.fairlead(sysAPI, "Fairlead's API, and the installation as a whole"))
	if b.opt.Peers {
		list = append(list, b.peers()...)
	}
	if b.opt.WAN {
		return slices.DeleteFunc(list, func(s *system) bool { return !slices.Contains(wanSystems, s.Name) })
	}
	return list
}

func (b *bench) measure(ctx context.Context) error {
	systems := b.systems(ctx)
	for _, s := range systems {
		b.report.Systems = append(b.report.Systems, s.SystemInfo)
	}
	running := map[string]*instance{}
	defer func() {
		for _, i := range running {
			i.end()
		}
	}()
	for _, group := range groupsOf(b.opt.WAN) {
		for rep := 1; rep <= b.opt.Reps; rep++ {
			if err := b.repetition(ctx, rep, group, systems, running); err != nil {
				return err
			}
			b.derive(rep)
		}
	}
	return nil
}

// repetition runs each cell of a group once on each system.
func (b *bench) repetition(ctx context.Context, rep int, group []cell, systems []*system, running map[string]*instance) error {
	only := func(name string) bool { return b.opt.Only == nil || b.opt.Only.MatchString(name) }
	for _, c := range group {
		for k, s := range systems {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if s.Missing != "" || !c.wanted(only, s.Name) || c.fresh && !c.startsOn(s.Name) {
				continue
			}
			i, err := b.take(ctx, s, c, rep, running)
			if err != nil && strings.HasPrefix(s.Name, sysAPI) {
				return fmt.Errorf("start %s: %w", s.Name, err) // a peer may be broken, our own must not
			}
			if err != nil {
				s.Missing = "it did not start: " + clip(err.Error(), 300)
				b.report.Systems[k].Missing = s.Missing
				fmt.Fprintf(b.opt.Progress, "%s: %s\n", s.Name, s.Missing)
				continue
			}
			b.one(ctx, rep, c, s.Name, i)
			if c.fresh {
				i.end()
			}
		}
	}
	return nil
}

// take gives a system that runs: a new one for a cell that wants that, else the one that lives through the run.
func (b *bench) take(ctx context.Context, s *system, c cell, rep int, running map[string]*instance) (*instance, error) {
	if i := running[s.Name]; i != nil && !c.fresh {
		return i, nil
	}
	if c.ownSite() {
		return &instance{}, nil
	}
	name := filepath.Join(s.Name, sharedFolder)
	if c.fresh {
		name = fmt.Sprintf("%s-%d-%s", c.name, rep, s.Name)
	}
	dir, err := b.folder(name)
	if err != nil {
		return nil, err
	}
	i, err := s.start(ctx, dir)
	if err == nil && !c.fresh {
		running[s.Name] = i
	}
	return i, err
}

// one loads one system with one cell.
func (b *bench) one(ctx context.Context, rep int, c cell, name string, i *instance) {
	s := Sample{Rep: rep, Cell: c.name, System: name, Stranger: -1, Values: map[string]float64{}}
	begin := time.Now()
	busy, errBusy := machineBusy()
	before, errUsage := account()
	err := c.run(ctx, b, name, i, &s)
	if errors.Is(err, errNotItsWork) {
		return
	}
	s.Seconds = time.Since(begin).Seconds()
	if errBusy == nil && errUsage == nil {
		busyNow, err1 := machineBusy()
		now, err2 := account()
		if err1 == nil && err2 == nil {
			s.Stranger = max(0, (busyNow-busy-(now.of(os.Getpid())-before.of(os.Getpid())))/s.Seconds)
		}
	}
	if err != nil {
		s.Error = err.Error()
	}
	fmt.Fprintf(b.opt.Progress, "%d/%d %-9s %-17s %.1f s%s\n", rep, b.opt.Reps, c.name, name, s.Seconds, prefixed("  not measured: ", clip(s.Error, 200)))
	b.report.Samples = append(b.report.Samples, s)
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// derive adds what follows from two systems of the same repetition.
func (b *bench) derive(rep int) {
	var direct *Sample
	for k := range b.report.Samples {
		s := &b.report.Samples[k]
		if s.Rep != rep || s.Cell != "query" || s.Error != "" {
			continue
		}
		switch {
		case s.System == sysDirect:
			direct = s
		case s.System == sysAPI && direct != nil:
			s.Values["query_added"] = s.Values["query_p50"] - direct.Values["query_p50"]
		case s.System == sysAPI:
			s.note("query_added", "the driver's own was not measured")
		}
	}
}

// exeSuffix ends the names of programs.
var exeSuffix = map[bool]string{true: ".exe"}[runtime.GOOS == "windows"]
