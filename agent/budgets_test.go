package agent

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
)

// limited is a trips whose papers profile is the probe, with limits; the Config can be changed and applied.
func limited(t *testing.T, p *probe, l LimitsConfig) (*trips, *audit.Log, *Config) {
	t.Helper()
	rec, log := recorder(t)
	s := tripsOn(t, rec, probeSite(t, folderYAML, p))
	c := DefaultConfig()
	c.Files = map[string]FilesProfile{"papers": {Limits: l}}
	s.budgets.apply(c)
	return s, log, c
}

// A profile that is over its rate or its concurrency is refused by the agent, before the target is touched; the refusal names
// the limit and the time, and is on record.
func TestProfileBudgetRefusesBeforeTheTargetIsTouched(t *testing.T) {
	p := &probe{calls: make(chan *connector.Call, 10)}
	s, log, _ := limited(t, p, LimitsConfig{Rate: 1, Burst: 2})
	for range 2 {
		if _, e, err := ask(t, s, read("a"), nil); e != nil || err != nil {
			t.Fatal(e, err)
		}
	}
	resp, e, err := ask(t, s, read("a"), nil)
	if err != nil || e == nil || e.Code != protocol.CodeRateLimited || e.Origin != protocol.OriginAgent || e.Rule != "files.papers.limits.rate" || e.RetryAfterMs <= 0 {
		t.Fatalf("%+v %v", e, err)
	}
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
	if len(p.calls) != 2 {
		t.Errorf("the target was touched %d times", len(p.calls))
	}
	if got := strings.Join(settled(t, log, 5), " "); got != "operation.intent operation.outcome operation.intent operation.outcome operation.denied rate_limited" {
		t.Error(got)
	}
}

// A reload puts new limits in force for what runs, counts it, and cuts nothing. The site's limits hold beside the profile's.
func TestReloadOfLimitsCountsWhatRunsAndCutsNothing(t *testing.T) {
	release := make(chan struct{})
	p := &probe{calls: make(chan *connector.Call, 10), do: func(ctx context.Context, _ *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
		select {
		case <-release:
		case <-ctx.Done():
			return protocol.Outcome{}, ctx.Err()
		}
		_, err := io.WriteString(w, "whole")
		return protocol.Outcome{}, err
	}}
	s, _, c := limited(t, p, LimitsConfig{})
	done := make(chan *protocol.Error, 2)
	for range 2 {
		go func() { _, e, _ := ask(t, s, read("a"), nil); done <- e }()
		<-p.calls
	}
	c.Limits = LimitsConfig{Concurrent: 1}
	s.budgets.apply(c)
	if _, e, _ := ask(t, s, read("a"), nil); e == nil || e.Rule != "limits.concurrent" || !strings.Contains(e.Message, "the site") {
		t.Fatalf("%+v", e)
	}
	close(release)
	for range 2 {
		if e := <-done; e != nil {
			t.Errorf("what ran was cut: %v", e)
		}
	}
	if n := s.budgets.of(&protocol.Request{Kind: protocol.KindFiles, Profile: "papers"})[0].Counts().Running; n != 0 {
		t.Errorf("%d run", n)
	}
}

// Answers leave as fast as the profile's egress says, and whole; so do the bytes of a dial, with its half-close.
func TestProfileEgressShapesAnswersAndDials(t *testing.T) {
	const size, rate = 1 << 20, 2 << 20
	p := &probe{calls: make(chan *connector.Call, 10), do: func(_ context.Context, _ *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
		_, err := w.Write(make([]byte, size))
		return protocol.Outcome{}, err
	}}
	s, _, _ := limited(t, p, LimitsConfig{Egress: rate})
	from := time.Now()
	resp, e, err := ask(t, s, read("a"), nil)
	if took := time.Since(from); err != nil || e != nil || resp.StatusCode != 200 || took < 300*time.Millisecond || took > 5*time.Second {
		t.Errorf("%s for half a second's bytes: %v %v", took, e, err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	lease, refusal := budget.Begin(s.budgets.of(&protocol.Request{Kind: protocol.KindFiles, Profile: "papers"})...)
	if refusal != nil {
		t.Fatal(refusal)
	}
	defer lease.End()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		pace := pacer{t.Context(), lease, func(error) {}}
		paced := pace.conn(c)
		defer paced.Close()
		_, _ = paced.Write(make([]byte, size))
		_ = paced.(interface{ CloseWrite() error }).CloseWrite()
		_, _ = io.Copy(io.Discard, paced)
	}()
	from = time.Now()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n, err := io.Copy(io.Discard, c)
	if took := time.Since(from); err != nil || n != size || took < 300*time.Millisecond {
		t.Errorf("%d bytes in %s: %v", n, took, err)
	}
}

// Closing a conn ends a write that waits for its turn.
func TestClosingADialEndsItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New("the profile", "tcp.x.limits")
		b.Set(budget.Limits{Egress: budget.MinEgress})
		lease, _ := budget.Begin(b)
		a, other := net.Pipe()
		defer other.Close()
		pace := pacer{t.Context(), lease, func(error) {}}
		c := pace.conn(a)
		done := make(chan error)
		go func() { _, err := c.Write(make([]byte, 64<<20)); done <- err }()
		synctest.Wait()
		c.Close()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// The day's bytes end what runs and refuse what comes, say so, and outlive a restart.
func TestTheDaysBytesBlock(t *testing.T) {
	p := &probe{calls: make(chan *connector.Call, 10), do: func(_ context.Context, _ *connector.Call, w http.ResponseWriter) (protocol.Outcome, error) {
		for {
			if _, err := w.Write(make([]byte, 10<<10)); err != nil {
				return protocol.Outcome{}, err
			}
		}
	}}
	s, log, c := limited(t, p, LimitsConfig{EgressDay: 100 << 10})
	if _, _, err := ask(t, s, read("a"), nil); err == nil {
		t.Error("an answer that was cut looks whole")
	}
	_, e, err := ask(t, s, read("a"), nil)
	if err != nil || e == nil || e.Code != protocol.CodeRateLimited || e.Rule != "files.papers.limits.egress_day" || e.RetryAfterMs <= 0 || e.RetryAfterMs > 24*3600*1000 {
		t.Fatalf("%+v %v", e, err)
	}
	settled(t, log, 3)
	file := filepath.Join(t.TempDir(), BudgetsFile)
	if err := s.budgets.save(file); err != nil {
		t.Fatal(err)
	}
	again, _, _ := limited(t, p, LimitsConfig{EgressDay: 100 << 10})
	again.budgets.apply(c)
	again.budgets.load(file, slog.New(slog.DiscardHandler))
	if _, e, _ := ask(t, again, read("a"), nil); e == nil || e.Rule != "files.papers.limits.egress_day" {
		t.Errorf("a restart gave the bytes back: %+v", e)
	}
	if err := os.WriteFile(file, []byte("no JSON"), 0o600); err != nil {
		t.Fatal(err)
	}
	again.budgets.load(file, slog.New(slog.DiscardHandler)) // told of, and no panic
}

func TestLimitsInAgentYAML(t *testing.T) {
	for text, fault := range map[string]string{
		"limits: {rate: 10, burst: 20, concurrent: 5, egress: 1MB, egress_day: 5GB}\n": "",
		"tcp:\n  erp: {host: erp.corp, port: 3200, limits: {concurrent: 100}}\n":       "",
		"tcp:\n  erp: {host: erp.corp, port: 3200, limits: {egress: 10}}\n":            "tcp.erp.limits.egress",
		"limits: {burst: 5}\n": "limits.burst",
		"limits: {rate: -5}\n": "limits.rate",
		"limits: {rates: 5}\n": "rates",
		"http:\n  crm: {base_url: https://crm.corp, allow: [{methods: [GET], path: /**}], limits: {rate: 2000000}}\n": "http.crm.limits.rate",
	} {
		_, err := parse(filepath.Join(t.TempDir(), "agent.yaml"), []byte("version: 1\n"+text))
		if fault == "" && err != nil || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// A reload that changes limits alone is another configuration, and cuts nothing.
func TestLimitsChangeTheDigest(t *testing.T) {
	digest := func(text string) string {
		c, err := parse(filepath.Join(t.TempDir(), "agent.yaml"), []byte("version: 1\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		p, err := c.Policy()
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	if digest("limits: {rate: 10}\n") == digest("limits: {rate: 11}\n") {
		t.Error("the same digest")
	}
}
