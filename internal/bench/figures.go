package bench

import (
	"fmt"
	"strings"
)

// Names of the systems that are always there.
const (
	sysDirect  = "direct"
	sysPlain   = "plain-pair"
	sysTLS     = "tls-pair"
	sysConnect = "fairlead-connect"
	sysGateway = "fairlead-gateway"
	sysQUIC    = "fairlead-quic"
	sysAPI     = "fairlead"
)

// figure is one kind of number.
type figure struct {
	name, unit, what string
	more             bool // more is better
}

var figures = []figure{
	{"down1", "MB/s", "bulk from the target, 1 stream", true},
	{"down1_cpu", "CPU s/GB", "CPU time of all its processes for it", false},
	{"up1", "MB/s", "bulk to the target, 1 stream", true},
	{"up1_cpu", "CPU s/GB", "the same for up1", false},
	{"down8", "MB/s", "bulk from the target, 8 streams", true},
	{"down8_cpu", "CPU s/GB", "the same for down8", false},
	{"up8", "MB/s", "bulk to the target, 8 streams", true},
	{"up8_cpu", "CPU s/GB", "the same for up8", false},
	{"ping1_p50", "µs", "round trip of 1 B on an open stream", false},
	{"ping1_p99", "µs", "its 99th percentile", false},
	{"ping1_cpu", "CPU µs", "CPU time of all its processes for a round trip", false},
	{"ping1024_p50", "µs", "round trip of 1 KiB on an open stream", false},
	{"ping1024_p99", "µs", "its 99th percentile", false},
	{"conn1_rate", "/s", "connect, 1 KiB, 1 KiB back, close; 1 at a time", true},
	{"conn1_p50", "µs", "its median", false},
	{"conn1_p99", "µs", "its 99th percentile", false},
	{"conn32_rate", "/s", "the same, 32 at a time", true},
	{"conn32_p50", "µs", "its median", false},
	{"conn32_p99", "µs", "its 99th percentile", false},
	{"http16_rate", "/s", "HTTP requests on 16 kept connections", true},
	{"http16_p99", "µs", "its 99th percentile", false},
	{"pg1_tps", "/s", "pgbench -S, prepared, 1 client", true},
	{"pg8_tps", "/s", "pgbench -S, prepared, 8 clients", true},
	{"query_p50", "µs", "a query of one row; direct: by the driver; fairlead: operation query of the API, kept connection", false},
	{"query_p99", "µs", "its 99th percentile", false},
	{"query_added", "µs", "query_p50 less the driver's own of the same repetition", false},
	{"rows_rate", "rows/s", "a result of many narrow rows", true},
	{"file_put", "MB/s", "a file written through the API", true},
	{"file_get", "MB/s", "a file read through the API", true},
	{"decide_p50", "µs", "a decision of a principal with 10,000 grants, in the harness's own process", false},
	{"allowlist_p50", "µs", "a look-up in an allowlist of 100,000 prefixes, the same", false},
	{"stream_relay", "KiB", "written memory of the relay side for an idle open stream", false},
	{"stream_agent", "KiB", "the same of the agent side", false},
	{"agent_process", "KiB", "written memory of one idle agent process", false},
	{"agent_relay", "KiB", "written memory of the relay for an idle agent", false},
	{"storm_99", "s", "from the relay's death until 99 % of the agents are back", false},
	{"storm_all", "s", "until all are back", false},
	{"storm_p99", "ms", "a request to an agent that is back, while others come", false},
}

// target is what is to be reached in a figure: a ratio to another system in the same run, or a number.
type target struct {
	figure string
	vs     string  // "" is the bound itself
	other  string  // figure of vs that is compared with; "" is the same one
	bound  float64 // at least where more is better, else at most

	congestion string // holds in runs with that congestion control alone; "": in all
}

func targets() []target {
	var t []target
	add := func(vs string, bound float64, names ...string) {
		for _, n := range names {
			t = append(t, target{figure: n, vs: vs, bound: bound})
		}
	}
	add(sysTLS, 0.9, "down1", "up1", "down8", "up8")
	add("frp", 1.7, "down1", "up1")
	add("frp", 1.9, "down8", "up8")
	add(sysTLS, 1.1, "down1_cpu", "up1_cpu", "down8_cpu", "up8_cpu")
	add("frp", 0.62, "down1_cpu", "up1_cpu", "down8_cpu", "up8_cpu")
	add(sysTLS, 1.2, "ping1_p50")
	add("frp", 0.5, "ping1_p50")
	add("frp", 0.8, "conn1_p50")
	add("frp", 1.8, "conn32_rate")
	add("frp", 1.4, "http16_rate")
	add("frp", 1.6, "pg1_tps")
	add("frp", 1.25, "pg8_tps")
	add("", 450, "query_added")
	add(sysDirect, 0.5, "rows_rate")
	add("", 5, "decide_p50")
	add("", 1, "allowlist_p50")
	add("", 12, "stream_relay")
	add("", 14, "stream_agent")
	add("", 65, "agent_relay")
	add("", 30, "storm_99")
	add("", 60, "storm_all")
	t = append(t, target{figure: "file_put", vs: sysRaw, other: "up1", bound: 0.8}, target{figure: "file_get", vs: sysRaw, other: "down1", bound: 0.8})
	return append(t, wanTargets()...)
}

// sysRaw stands for Fairlead's own raw stream: through a gateway port where there is one.
const sysRaw = "raw"

// verdict says how a system stands to a target. ratio and ok are not given (known is false) when the other was not measured.
func (t target) verdict(more bool, have float64, other float64, known bool) string {
	sign, of := "≤", t.vs
	if more {
		sign = "≥"
	}
	if t.other != "" {
		of += " " + t.other
	}
	if t.vs == "" {
		return fmt.Sprintf("%s %s: %s", sign, number(t.bound), met(more, have, t.bound))
	}
	if !known || other == 0 {
		return fmt.Sprintf("%s %s × %s: not measured", sign, number(t.bound), of)
	}
	return fmt.Sprintf("%s %s × %s: %s (%s)", sign, number(t.bound), of, met(more, have/other, t.bound), number(have/other))
}

func met(more bool, have, bound float64) string {
	if more && have >= bound || !more && have <= bound {
		return "met"
	}
	return "NOT met"
}

// number prints three digits that count, and whole numbers whole.
func number(v float64) string {
	a := v
	if a < 0 {
		a = -a
	}
	switch {
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	case a == 0:
		return "0"
	case a < 0.1:
		return fmt.Sprintf("%.2g", v)
	}
	s := fmt.Sprintf("%.2f", v)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
