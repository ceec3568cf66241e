package relay

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairleadhq/fairlead/internal/budget"
)

// budgetCollector tells of all budgets of a kind together: a label for each workspace would come from what people made. What
// became of one budget is told by the API.
type budgetCollector struct{ r *Relay }

var (
	budgetRunning = prometheus.NewDesc("fairlead_budget_running", "Operations and dials that run, by whose budget.", []string{"budget"}, nil)
	budgetUsed    = prometheus.NewDesc("fairlead_budget_operations_total", "Operations that budgets with limits admitted.", []string{"budget"}, nil)
	budgetRefused = prometheus.NewDesc("fairlead_budget_refused_total", "Operations that budgets refused, by limit.", []string{"budget", "limit"}, nil)
	budgetBytes   = prometheus.NewDesc("fairlead_budget_bytes_total", "Bytes that budgets with an egress limit let go; of agents: of their audit records.", []string{"budget"}, nil)
	budgetWaits   = prometheus.NewDesc("fairlead_budget_waits_total", "Pieces of data that had to wait for their turn.", []string{"budget"}, nil)
	budgetWaited  = prometheus.NewDesc("fairlead_budget_waited_seconds_total", "Time that data waited for its turn, of all streams together.", []string{"budget"}, nil)
)

// Describe implements prometheus.Collector.
func (budgetCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{budgetRunning, budgetUsed, budgetRefused, budgetBytes, budgetWaits, budgetWaited} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c budgetCollector) Collect(ch chan<- prometheus.Metric) {
	workspaces, connections := c.r.dispatch.Sums()
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for kind, n := range map[string]budget.Counts{"workspace": workspaces, "connection": connections, "agent_records": c.r.pace.agents.Sums(ofAgent)} {
		counter(budgetBytes, float64(n.Bytes), kind)
		counter(budgetWaits, float64(n.Waits), kind)
		counter(budgetWaited, n.Waited.Seconds(), kind)
		if kind == "agent_records" { // refuses nothing
			continue
		}
		ch <- prometheus.MustNewConstMetric(budgetRunning, prometheus.GaugeValue, float64(n.Running), kind)
		counter(budgetUsed, float64(n.Begun), kind)
		counter(budgetRefused, float64(n.RefusedRate), kind, budget.LimitRate)
		counter(budgetRefused, float64(n.RefusedConcurrent), kind, budget.LimitConcurrent)
	}
}
