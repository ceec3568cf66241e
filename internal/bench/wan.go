package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/wan"
)

// Over a wide-area line, relay and load generator are at the near end, agent and target at the far one. So the line is
// between agent and relay, and for the direct way between load generator and target. Every system is warmed up by the same
// load before each cell.

const (
	wanWarm = time.Second     // of load before bulk is measured
	wanRest = 2 * time.Second // after it: what was cut is gone, and connections are there again
	// wanPings streams ping at a time, so that a percentile has enough to stand on, each so often, whether or not the answer
	// before has come: else a stall of seconds would count as one slow ping.
	wanPings = 4
	wanEvery = 50 * time.Millisecond
	wanLoss  = 0.01
)

var wanFigures = []figure{
	{"wan_conn_p50", "ms", "connect, 1 KiB there, 1 KiB back, close; one at a time, no loss", false},
	{"wan_conn_p99", "ms", "its 99th percentile", false},
	{"wan_down1", "MB/s", "bulk from the target, 1 stream, no loss", true},
	{"wan_down8", "MB/s", "the same on 8 streams", true},
	{"wan_ping_p50", "ms", "round trip of 1 B beside one bulk stream, no loss", false},
	{"wan_ping_p99", "ms", "its 99th percentile", false},
	{"wan_beside", "MB/s", "what that bulk stream moved", true},
	{"wan_down1_loss", "MB/s", "bulk from the target, 1 stream, 1 % loss each way", true},
	{"wan_down8_loss", "MB/s", "the same on 8 streams", true},
	{"wan_down1_after_loss", "MB/s", "bulk from the target, 1 stream, right after that loss has ended", true},
	{"wan_ping_p50_loss", "ms", "round trip of 1 B beside one bulk stream, 1 % loss each way", false},
	{"wan_ping_p99_loss", "ms", "its 99th percentile", false},
	{"wan_beside_loss", "MB/s", "what that bulk stream moved", true},
}

// wanSystems are those that are set up with the line between their halves.
var wanSystems = []string{sysDirect, sysTLS, sysGateway, "frp", "frp-nomux"}

func figuresOf(overWAN bool) []figure {
	if overWAN {
		return wanFigures
	}
	return figures
}

// groupsOf are the cells whose repetitions are done before those of the next group. A connection that has lived through loss
// is slow for a while, so what is measured without loss comes first.
func groupsOf(overWAN bool) [][]cell {
	if !overWAN {
		return [][]cell{cells()}
	}
	var clean, lossy []cell
	for _, c := range wanCells() {
		if strings.HasSuffix(c.name, "_loss") {
			lossy = append(lossy, c)
		} else {
			clean = append(clean, c)
		}
	}
	return [][]cell{clean, lossy}
}

// wanTargets are held against the medians, as the others are.
func wanTargets() []target {
	return []target{
		{figure: "wan_conn_p50", bound: 42}, // a round trip of 40 ms, and 2
		{figure: "wan_ping_p99", vs: sysDirect, bound: 1.1},
		{figure: "wan_ping_p99_loss", vs: sysDirect, bound: 2},
		{figure: "wan_ping_p99_loss", vs: "frp", bound: 0.3},
		{figure: "wan_down8_loss", vs: sysDirect, bound: 0.95, congestion: "cubic"},
		{figure: "wan_down8_loss", vs: "frp", bound: 6, congestion: "cubic"},
	}
}

func wanCells() []cell {
	list := []cell{{"wan_conn", []string{"wan_conn_p50", "wan_conn_p99"}, false, func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
		return b.over(0, func() error {
			r, err := repeat(ctx, 1, b.opt.Cell, func(int) error { return once(ctx, i.raw) })
			if err != nil {
				return err
			}
			s.milliseconds("wan_conn", "", r.took)
			if s.Failed = r.failed; r.failed > 0 {
				s.Failure = r.err.Error()
			}
			return nil
		})
	}}}
	for _, loss := range []float64{0, wanLoss} {
		suffix := ""
		if loss > 0 {
			suffix = "_loss"
		}
		for _, n := range []int{1, 8} {
			name := fmt.Sprintf("wan_down%d%s", n, suffix)
			list = append(list, cell{name, []string{name}, false, func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
				return b.over(loss, func() error {
					if err := warm(ctx, i.raw, n); err != nil {
						return err
					}
					bytes, seconds, err := bulkDown(ctx, i.raw, n, b.opt.Cell)
					if err == nil {
						s.Values[name] = bytes / 1e6 / seconds
					}
					return err
				})
			}})
		}
		if loss > 0 {
			list = append(list, cell{"wan_after_loss", []string{"wan_down1_after_loss"}, false, downAfter})
		}
		list = append(list, cell{"wan_ping" + suffix, []string{"wan_ping_p50" + suffix, "wan_ping_p99" + suffix, "wan_beside" + suffix}, false,
			func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
				return b.over(loss, func() error {
					took, rate, err := pingBeside(ctx, i.raw, b.opt.Cell)
					if err != nil {
						return err
					}
					s.milliseconds("wan_ping", suffix, took)
					s.Values["wan_beside"+suffix] = rate
					return nil
				})
			}})
	}
	return list
}

// downAfter measures bulk when the line has just stopped losing packets, which bulk and pings went through: what connections
// have learnt from the loss is what holds them back then.
func downAfter(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
	if err := b.over(wanLoss, func() error {
		if _, _, err := pingBeside(ctx, i.raw, b.opt.Cell); err != nil {
			return err
		}
		return wait(ctx, wanRest)
	}); err != nil {
		return err
	}
	bytes, seconds, err := bulkDown(ctx, i.raw, 1, b.opt.Cell)
	if err == nil {
		s.Values["wan_down1_after_loss"] = bytes / 1e6 / seconds
	}
	return err
}

// over runs f while the line loses packets so.
func (b *bench) over(loss float64, f func() error) error {
	cfg := wan.WAN()
	cfg.Loss = loss
	if err := b.line.Set(cfg); err != nil {
		return err
	}
	err := f()
	cfg.Loss = 0
	return errors.Join(err, b.line.Set(cfg))
}

// warm loads n streams for a moment, and lets what was cut go.
func warm(ctx context.Context, addr string, n int) error {
	if _, _, err := bulkDown(ctx, addr, n, wanWarm); err != nil {
		return fmt.Errorf("warm up: %w", err)
	}
	return wait(ctx, wanRest)
}

// pingBeside pings on streams of their own while one stream takes what it can get, for d after a warm-up. It gives the round
// trips in seconds, and MB/s of the bulk.
func pingBeside(ctx context.Context, addr string, d time.Duration) (took []float64, rate float64, err error) {
	if err := warm(ctx, addr, 1+wanPings); err != nil {
		return nil, 0, err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var bulk error
	wg.Go(func() {
		var bytes, seconds float64
		if bytes, seconds, bulk = bulkDown(ctx, addr, 1, wanRest+d); bulk == nil {
			rate = bytes / 1e6 / seconds
		} else {
			cancel()
		}
	})
	if err := wait(ctx, wanRest); err != nil { // the bulk is at its speed
		wg.Wait()
		return nil, 0, cmpErr(bulk, err)
	}
	var mu sync.Mutex
	err = several(wanPings, func(int) error {
		some, err := paced(ctx, addr, wanEvery, d)
		mu.Lock()
		defer mu.Unlock()
		took = append(took, some...)
		return err
	})
	wg.Wait()
	return took, rate, cmpErr(bulk, err)
}

// paced sends a byte each interval for d on one open stream and measures from when it was due until it was back, in seconds.
func paced(ctx context.Context, addr string, interval, d time.Duration) ([]float64, error) {
	c, closeConn, err := open(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer closeConn()
	if err := echo(c); err != nil { // the way is open
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(d + time.Minute)); err != nil {
		return nil, err
	}
	n := max(1, int(d/interval))
	begin := time.Now()
	due := func(i int) time.Time { return begin.Add(time.Duration(i) * interval) }
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for i := range n {
			if wait(ctx, time.Until(due(i))) != nil {
				return
			}
			if _, err := c.Write([]byte{'p'}); err != nil {
				return // the reader sees it, too
			}
		}
	})
	took, b := make([]float64, 0, n), make([]byte, 1)
	for i := range n {
		if _, err := io.ReadFull(c, b); err != nil {
			closeConn()
			return nil, fmt.Errorf("ping %d of %d: %w", i, n, err)
		}
		took = append(took, time.Since(due(i)).Seconds())
	}
	return took, nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// milliseconds records p50 and p99.
func (s *Sample) milliseconds(name, suffix string, seconds []float64) {
	s.Values[name+"_p50"+suffix] = quantile(seconds, 0.5) * 1e3
	s.Values[name+"_p99"+suffix] = quantile(seconds, 0.99) * 1e3
}

// openLine makes the far end and the line to it.
func (b *bench) openLine() (err error) {
	b.opt.Congestion = cmpOr(b.opt.Congestion, "cubic")
	b.opt.OwnCongestion = cmpOr(b.opt.OwnCongestion, "system")
	if have := wan.Congestions(); len(have) > 0 && !slices.Contains(have, b.opt.Congestion) {
		return fmt.Errorf("this kernel has no TCP congestion control %q, but %s", b.opt.Congestion, strings.Join(have, ", "))
	}
	self, err := b.roleCommand("line", struct{}{})
	if err != nil {
		return err
	}
	cfg := wan.WAN()
	if b.line, err = wan.Open(cfg, b.opt.Congestion, self); err != nil {
		return err
	}
	b.report.Options["line"] = cfg
	b.report.Options["congestion"] = b.opt.Congestion
	b.report.Options["own_congestion"] = b.opt.OwnCongestion
	b.report.Machine["congestion control"] = fmt.Sprintf("%s at both ends of the line; Fairlead's own setting is %s", b.opt.Congestion, b.opt.OwnCongestion)
	b.report.Machine["line"] = fmt.Sprintf("%s there and back, %s Mbit/s, a queue of %s MB, 1 %% loss each way where a figure says so", 2*cfg.Delay, number(cfg.Rate*8/1e6), number(float64(cfg.Queue)/1e6))
	return nil
}

// closeLine tells how well the line kept its times.
func (b *bench) closeLine() error {
	if c, err := b.line.Counts(); err == nil {
		if all := c.Up.Packets + c.Down.Packets; all > 0 {
			b.report.Machine["late packets"] = fmt.Sprintf("%.2f %% of %d were delivered 2 ms late or more", 100*float64(c.Up.Late+c.Down.Late)/float64(all), all)
		}
	}
	return b.line.Close()
}

// nearHost and farHost are where relay and target listen: on loopback, or at the ends of the line.
func (b *bench) nearHost() string {
	if b.line != nil {
		return wan.Near
	}
	return "127.0.0.1"
}

func (b *bench) farHost() string {
	if b.line != nil {
		return wan.Far
	}
	return "127.0.0.1"
}

func (b *bench) near(port int) string { return net.JoinHostPort(b.nearHost(), strconv.Itoa(port)) }
func (b *bench) far(port int) string  { return net.JoinHostPort(b.farHost(), strconv.Itoa(port)) }

// startFar starts a program where the agent and the target are.
func (b *bench) startFar(dir, name string, argv ...string) (*process, error) {
	if b.line == nil {
		return start(dir, name, nil, argv...)
	}
	return startBy(b.line.Start, dir, name, nil, argv...)
}

// setCongestion writes Fairlead's own setting into a configuration.
func (s *site) setCongestion(file, text string) error {
	if s.b.line == nil {
		return nil
	}
	return appendTo(file, fmt.Sprintf(text, s.b.opt.OwnCongestion))
}
