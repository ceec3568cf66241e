package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/protocol"
)

// LimitsConfig is what a profile, or all of them together, may be used for; 0 in a field is no limit.
type LimitsConfig struct {
	Rate       int64       `yaml:"rate"`       // operations begun a second
	Burst      int64       `yaml:"burst"`      // operations begun at once; 0: as many as Rate
	Concurrent int64       `yaml:"concurrent"` // operations and open dials at a time
	Egress     config.Size `yaml:"egress"`     // bytes a second that leave the site
	EgressDay  config.Size `yaml:"egress_day"` // bytes a day (UTC) that leave the site
}

func (l LimitsConfig) limits() budget.Limits {
	return budget.Limits{Rate: l.Rate, Burst: l.Burst, Concurrent: l.Concurrent, Egress: int64(l.Egress), EgressDay: int64(l.EgressDay)}
}

func (v *validator) limits() {
	for path, l := range v.c.limits() {
		if field, want := l.Check(); field != "" {
			v.fault(path+"."+field, "is out of range", want)
		}
	}
}

// limits gives the budgets by their places in agent.yaml.
func (c *Config) limits() map[string]budget.Limits {
	all := map[string]budget.Limits{siteLimits: c.Limits.limits()}
	add := func(kind protocol.Kind, name string, l LimitsConfig) { all[profileLimits(kind, name)] = l.limits() }
	for name, p := range c.Database {
		add(protocol.KindDatabase, name, p.Limits)
	}
	for name, p := range c.Files {
		add(protocol.KindFiles, name, p.Limits)
	}
	for name, p := range c.HTTP {
		add(protocol.KindHTTP, name, p.Limits)
	}
	for name, p := range c.TCP {
		add(protocol.KindTCP, name, p.Limits)
	}
	return all
}

// siteLimits is the place of the limits of all profiles, and of dials by the allow list, together.
const siteLimits = "limits"

func profileLimits(kind protocol.Kind, name string) string {
	return policy.Path(kind, name) + ".limits"
}

// budgets outlive the sites that come and go with reloads: what runs counts in them whatever it began by. The zero value limits
// nothing; safe for concurrent use.
type budgets struct{ book budget.Book }

// apply puts the limits of a configuration in force. Nothing that runs is cut by it.
func (b *budgets) apply(c *Config) {
	all := c.limits()
	for path, l := range all {
		if path == siteLimits || l != (budget.Limits{}) {
			b.book.Get(path, owner(path), path).Set(l)
		} else if old := b.book.Find(path); old != nil {
			old.Set(l)
		}
	}
	b.book.Keep(func(path string) bool { _, ok := all[path]; return ok })
}

func owner(path string) string {
	if path == siteLimits {
		return "the site"
	}
	return "the profile"
}

// of gives the budgets that an operation counts in: its profile's, if it has one, and the site's.
func (b *budgets) of(r *protocol.Request) []*budget.Budget {
	site := b.book.Get(siteLimits, owner(siteLimits), siteLimits)
	if r.Profile == protocol.NoProfile {
		return []*budget.Budget{site}
	}
	path := profileLimits(r.Kind, r.Profile)
	return []*budget.Budget{b.book.Get(path, owner(path), path), site}
}

// BudgetsFile, in the data folder, keeps the bytes of the day over a restart.
const BudgetsFile = "budgets.json"

// spent is what stands in it.
type spent struct {
	Day   int64            `json:"day"` // since 1970, UTC
	Bytes map[string]int64 `json:"bytes"`
}

// load takes up what the day has used already. A file that cannot be read is told of, and no reason to stop.
func (b *budgets) load(file string, log *slog.Logger) {
	data, err := config.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var s spent
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		log.Warn("what was used of the day's budgets cannot be read; counting from zero", "file", file, "error", err)
		return
	}
	for path, n := range s.Bytes {
		if k := b.book.Find(path); k != nil {
			k.Restore(s.Day, n)
		}
	}
}

// save writes what the day has used of budgets that count it; nothing when there are none.
func (b *budgets) save(file string) error {
	s := spent{Bytes: map[string]int64{}}
	b.book.Each(func(path string, k *budget.Budget) {
		if k.Limits().EgressDay > 0 {
			s.Day, s.Bytes[path] = k.Day()
		}
	})
	if len(s.Bytes) == 0 {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode budgets: %w", err)
	}
	if err := config.ReplaceFile(file, append(data, '\n')); err != nil {
		return fmt.Errorf("save budgets: %w", err)
	}
	return nil
}

const (
	budgetSave = 10 * time.Second // a crash gives back what was used since
	budgetTell = time.Minute
)

// run saves the day's bytes, and logs what budgets refused and kept waiting: the agent listens on nothing that could be asked.
func (b *budgets) run(ctx context.Context, file string, log *slog.Logger) {
	save := func() {
		if err := b.save(file); err != nil {
			log.Warn("what was used of the day's budgets could not be kept", "error", err)
		}
	}
	defer save()
	saves, tells := time.NewTicker(budgetSave), time.NewTicker(budgetTell)
	defer saves.Stop()
	defer tells.Stop()
	told := map[string]budget.Counts{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-saves.C:
			save()
		case <-tells.C:
			b.tell(log, told)
		}
	}
}

func (b *budgets) tell(log *slog.Logger, told map[string]budget.Counts) {
	b.book.Each(func(path string, k *budget.Budget) {
		c, last := k.Counts(), told[path]
		told[path] = c
		refused := c.RefusedRate + c.RefusedConcurrent + c.RefusedDay - last.RefusedRate - last.RefusedConcurrent - last.RefusedDay
		waited := c.Waited - last.Waited
		if refused > 0 || waited > time.Second {
			log.Info("a budget was used up in the last minute", "budget", path, "running", c.Running, "begun", c.Begun-last.Begun, "refused", refused,
				"bytes", c.Bytes-last.Bytes, "bytes_today", c.Today, "waited", waited.Round(time.Millisecond))
		}
	})
}
