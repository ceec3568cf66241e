package relay

import (
	"context"
	"fmt"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairleadhq/fairlead/protocol"
)

// metrics of one relay. Label values come from fixed sets only, never from a request or an agent.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

func newMetrics(r *Relay) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_requests_total", Help: "API requests by route group and status class."}, []string{"group", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "fairlead_request_seconds", Help: "Time from request to the end of the answer.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5, 30, 300}}, []string{"group"}),
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
	}
	m.registry.MustRegister(m.requests, m.seconds, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gauge("fairlead_agents_connected", "Agents with at least one live tunnel.", func() float64 { a, _ := r.hub.Count(); return float64(a) }),
		gauge("fairlead_tunnels", "Live tunnels.", func() float64 { _, t := r.hub.Count(); return float64(t) }),
		gauge("fairlead_lanes", "Dedicated connections of agents beside their tunnels.", func() float64 { return float64(r.hub.Lanes()) }),
		gauge("fairlead_gateways_open", "Gateways whose port is open.", func() float64 { return float64(r.gateways.Counts().Open) }),
		gauge("fairlead_gateways_failed", "Gateways whose port could not be opened.", func() float64 { return float64(r.gateways.Counts().Failed) }),
		gauge("fairlead_gateway_conns", "Conns through gateways.", func() float64 { return float64(r.gateways.Counts().Conns) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "fairlead_gateway_refused_total", Help: "Conns that gateways refused before the agent was asked."},
			func() float64 { return float64(r.gateways.Counts().Refused) }),
		gauge("fairlead_audit_available", "1 while the audit log of every workspace takes events.", func() float64 {
			if r.auditHealth() != nil {
				return 0
			}
			return 1
		}),
		gauge("fairlead_certificate_expiry_seconds", "Time until the relay's own certificate ends.", func() float64 {
			return time.Until(r.server.Get().Leaf().NotAfter).Seconds()
		}))
	m.registry.MustRegister(budgetCollector{r})
	if r.mail != nil {
		m.registry.MustRegister(mailCollector{r.mail})
	}
	return m
}

// group is a request's route group, from a fixed set.
func group(path string) string {
	parts := splitPath(path)
	switch {
	case len(parts) >= 7 && parts[4] == "connections":
		switch op := parts[6]; op {
		case "query", "exec", "transaction", "schema", "list", "stat", "move", "mkdir", "files", "http", "dial":
			return op
		}
	case len(parts) == 5 && parts[4] == "tunnel":
		return "tunnel"
	case len(parts) >= 5 && parts[2] == "workspaces":
		return "admin"
	}
	return "other"
}

func splitPath(p string) []string {
	var parts []string
	start := 1
	for i := 1; i <= len(p); i++ {
		if i == len(p) || p[i] == '/' {
			parts = append(parts, p[start:i])
			start = i + 1
			if len(parts) == 8 {
				break
			}
		}
	}
	return parts
}

// instrument counts requests and writes one line of log each, without payloads.
func (r *Relay) instrument(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		started := time.Now()
		r.requests.add(1)
		defer r.requests.add(-1)
		g := group(req.URL.Path)
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler {
				// The request fails, the relay lives. The stack is ours alone; the value may hold what was sent, so only its type.
				r.opt.Logger.Error("request panicked", "request_id", w.Header().Get(protocol.HeaderRequestID), "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
				p = http.ErrAbortHandler
			}
			took := time.Since(started)
			r.metrics.requests.WithLabelValues(g, strconv.Itoa(sw.status/100)+"xx").Inc()
			r.metrics.seconds.WithLabelValues(g).Observe(took.Seconds())
			r.opt.Logger.Debug("request", "request_id", w.Header().Get(protocol.HeaderRequestID), "group", g, "method", req.Method, "status", sw.status, "took", took.Round(time.Microsecond))
			if p != nil {
				panic(p)
			}
		}()
		next.ServeHTTP(sw, req)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		s.status = status
	}
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController find Flush, Hijack and deadlines.
func (s *statusWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// auditHealth opens the log of each workspace and says which takes no events.
func (r *Relay) auditHealth() error {
	for _, ws := range r.dir.Snapshot().Workspaces() {
		log, err := r.logs.Get(ws.ID)
		if err != nil {
			return err
		}
		if st := log.Status(); st.Err != nil {
			return st.Err
		}
	}
	return nil
}

// healthHandler serves /healthz (the process lives), /readyz (it can do its work) and /metrics.
func (r *Relay) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), 5*time.Second)
		defer cancel()
		check := func(name string, err error) bool {
			if err != nil {
				r.opt.Logger.Warn("not ready", "check", name, "error", err)
				http.Error(w, name+" is not available; see the relay's log", http.StatusServiceUnavailable)
			}
			return err == nil
		}
		select {
		case <-r.stopping:
			http.Error(w, "stopping", http.StatusServiceUnavailable)
			return
		default:
		}
		if check("state", r.dir.Health(ctx)) && check("audit log", r.auditHealth()) {
			_, _ = w.Write([]byte("ready\n"))
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(r.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}
