package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/relay/client"
)

// cell is one load that gives figures.
type cell struct {
	name    string
	figures []string
	fresh   bool // wants processes that have done nothing yet
	run     func(ctx context.Context, b *bench, system string, i *instance, s *Sample) error
}

// errNotItsWork means that a cell makes no sense for a system: there is nothing to print about it.
var errNotItsWork = errors.New("not this system's work")

func cells() []cell {
	list := []cell{
		{"streams", []string{"stream_relay", "stream_agent"}, true, idleStreams},
		{"agents", []string{"agent_process", "agent_relay", "storm_99", "storm_all", "storm_p99"}, true, manyAgents},
	}
	for _, n := range []int{1, 8} {
		for _, way := range []string{"down", "up"} {
			name := fmt.Sprintf("%s%d", way, n)
			list = append(list, cell{name, []string{name, name + "_cpu"}, false, func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
				if i.raw == "" {
					return errNotItsWork
				}
				var bytes, seconds float64
				cpu, err := b.metered(ctx, i, func() (err error) {
					if way == "down" {
						bytes, seconds, err = bulkDown(ctx, i.raw, n, b.opt.Cell)
					} else {
						bytes, seconds, err = bulkUp(ctx, i.raw, n, b.opt.Cell)
					}
					return err
				}, s)
				if err != nil {
					return err
				}
				if bytes == 0 {
					return errors.New("no byte came through")
				}
				s.Values[name] = bytes / 1e6 / seconds
				s.perCPU(i, name+"_cpu", cpu, bytes/1e9)
				return nil
			}})
		}
	}
	for _, size := range []int{1, 1024} {
		name := fmt.Sprintf("ping%d", size)
		made := []string{name + "_p50", name + "_p99"}
		if size == 1 {
			made = append(made, name+"_cpu")
		}
		list = append(list, cell{name, made, false, func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
			if i.raw == "" {
				return errNotItsWork
			}
			var took []float64
			cpu, err := b.metered(ctx, i, func() (err error) {
				took, err = ping(ctx, i.raw, size, b.opt.Cell)
				return err
			}, s)
			if err != nil {
				return err
			}
			s.quantiles(name, took)
			if size == 1 {
				s.perCPU(i, name+"_cpu", cpu*1e6, float64(len(took)))
			}
			return nil
		}})
	}
	for _, n := range []int{1, 32} {
		name := fmt.Sprintf("conn%d", n)
		list = append(list, cell{name, []string{name + "_rate", name + "_p50", name + "_p99"}, false,
			func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
				if i.raw == "" {
					return errNotItsWork
				}
				r, err := repeat(ctx, n, b.opt.Cell, func(int) error { return once(ctx, i.raw) })
				return s.rounds(name, r, err)
			}})
	}
	return append(list,
		cell{"http16", []string{"http16_rate", "http16_p99"}, false, func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
			if i.raw == "" {
				return errNotItsWork
			}
			r, err := httpKeepAlive(ctx, i.raw, 16, b.opt.Cell)
			err = s.rounds("http16", r, err)
			delete(s.Values, "http16_p50")
			return err
		}},
		pgbenchCell(1), pgbenchCell(8),
		cell{"query", []string{"query_p50", "query_p99", "query_added"}, false, func(ctx context.Context, b *bench, system string, i *instance, s *Sample) (err error) {
			if system != sysDirect && system != sysAPI {
				return errNotItsWork
			}
			if b.pg == nil {
				return errors.New(b.pgMissing)
			}
			var r *rounds
			if system == sysDirect {
				r, err = b.askDirect(ctx)
			} else {
				r, err = b.askAPI(ctx, i.api)
			}
			err = s.rounds("query", r, err)
			delete(s.Values, "query_rate")
			return err
		}},
		cell{"rows", []string{"rows_rate"}, false, func(ctx context.Context, b *bench, system string, i *instance, s *Sample) (err error) {
			if system != sysDirect && system != sysAPI {
				return errNotItsWork
			}
			if b.pg == nil {
				return errors.New(b.pgMissing)
			}
			var rate float64
			if system == sysDirect {
				rate, err = b.readDirect(ctx)
			} else {
				rate, err = b.readAPI(ctx, i.api)
			}
			if err == nil {
				s.Values["rows_rate"] = rate
			}
			return err
		}},
		cell{"file", []string{"file_put", "file_get"}, false, transferFile},
		cell{"rights", []string{"decide_p50", "allowlist_p50"}, false, decisions},
	)
}

// wanted reports whether a cell is to be run on a system.
func (c cell) wanted(only func(string) bool, system string) bool {
	return only(c.name+"/"+system) || slices.ContainsFunc(c.figures, func(f string) bool { return only(f + "/" + system) })
}

// ownSite reports whether a cell starts what it needs itself.
func (c cell) ownSite() bool { return c.name == "agents" }

// startsOn reports whether a fresh cell has work on a system, so that none is started for nothing.
func (c cell) startsOn(system string) bool {
	if c.ownSite() {
		return system == sysAPI
	}
	return system != sysDirect && system != sysAPI
}

// cellFigures are the figures that a cell gives.
func cellFigures(name string) []string {
	for _, c := range append(cells(), wanCells()...) {
		if c.name == name {
			return c.figures
		}
	}
	return nil
}

func pgbenchCell(clients int) cell {
	figure := fmt.Sprintf("pg%d_tps", clients)
	return cell{fmt.Sprintf("pg%d", clients), []string{figure}, false, func(ctx context.Context, b *bench, _ string, i *instance, s *Sample) error {
		if i.raw == "" {
			return errNotItsWork
		}
		if b.pg == nil || b.pgbench == "" {
			return errors.New(cmpOr(b.pgMissing, b.pgbenchMissing))
		}
		rate, err := b.runPgbench(ctx, i.pg, clients)
		if err == nil {
			s.Values[figure] = rate
		}
		return err
	}}
}

func transferFile(ctx context.Context, b *bench, system string, i *instance, s *Sample) error {
	if system != sysAPI {
		return errNotItsWork
	}
	begin := time.Now()
	// The size is told, and the content is a plain reader: one request, no resumption.
	if _, err := i.api.Put(ctx, "bulk", "load.bin", io.LimitReader(zeroes{}, b.opt.FileSize), b.opt.FileSize, client.PutOptions{}); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	s.Values["file_put"] = float64(b.opt.FileSize) / 1e6 / time.Since(begin).Seconds()
	begin = time.Now()
	f, err := i.api.Get(ctx, "bulk", "load.bin", client.GetOptions{})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer f.Close()
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, chunk))
	if err == nil && n != b.opt.FileSize {
		err = fmt.Errorf("%d bytes came of %d", n, b.opt.FileSize)
	}
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	s.Values["file_get"] = float64(n) / 1e6 / time.Since(begin).Seconds()
	return i.api.Delete(ctx, "bulk", "load.bin", "")
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// metered gives the CPU seconds that the processes of a system spent on f, what they do when it has ended included, up to
// half a second. Why they cannot be told becomes a note on the sample.
func (b *bench) metered(ctx context.Context, i *instance, f func() error, s *Sample) (float64, error) {
	before, errBefore := account()
	if err := f(); err != nil {
		return 0, err
	}
	ids := i.pids()
	if errBefore != nil || len(ids) == 0 {
		if errBefore != nil {
			s.unaccounted = errBefore.Error()
		}
		return 0, nil
	}
	last, err := account()
	for range 5 {
		if err != nil {
			break
		}
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return 0, err
		}
		var now *usage
		if now, err = account(); err == nil {
			quiet := now.of(ids...)-last.of(ids...) < 0.02
			last = now
			if quiet {
				break
			}
		}
	}
	if err != nil {
		s.unaccounted = err.Error()
		return 0, nil
	}
	return last.of(ids...) - before.of(ids...), nil
}

// perCPU records CPU time over an amount, for systems that have processes.
func (s *Sample) perCPU(i *instance, figure string, cpu, amount float64) {
	switch {
	case len(i.pids()) == 0:
	case s.unaccounted != "":
		s.note(figure, s.unaccounted)
	default:
		s.Values[figure] = cpu / amount
	}
}

func (s *Sample) note(figure, why string) {
	if s.Notes == nil {
		s.Notes = map[string]string{}
	}
	s.Notes[figure] = why
}

// quantiles records p50 and p99 in microseconds.
func (s *Sample) quantiles(name string, seconds []float64) {
	if len(seconds) == 0 {
		s.note(name+"_p50", "nothing was done in the time given")
		s.note(name+"_p99", "nothing was done in the time given")
		return
	}
	s.Values[name+"_p50"] = quantile(seconds, 0.5) * 1e6
	s.Values[name+"_p99"] = quantile(seconds, 0.99) * 1e6
}

// rounds records what repeating an act came to.
func (s *Sample) rounds(name string, r *rounds, err error) error {
	if err != nil {
		return err
	}
	s.Values[name+"_rate"] = float64(len(r.took)) / r.seconds
	s.quantiles(name, r.took)
	if s.Failed = r.failed; r.failed > 0 {
		s.Failure = r.err.Error()
	}
	return nil
}

func splitAddr(addr string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(addr); err == nil && strings.Contains(host, ":") {
		err = fmt.Errorf("%s: IPv6 is not asked for here", addr)
	}
	return host, port, err
}
