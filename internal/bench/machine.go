package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"
)

// machine tells what the figures were measured on.
func machine() map[string]string {
	m := map[string]string{"go": runtime.Version(), "os": runtime.GOOS + "/" + runtime.GOARCH, "cpus": fmt.Sprint(runtime.NumCPU())}
	for k, v := range map[string]string{"cpu": cpuModel(), "memory": totalMemory(), "kernel": kernel(), "system": distribution(), "congestion control": congestionControl()} {
		if v != "" {
			m[k] = v
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" || s.Key == "vcs.modified" {
				m[s.Key] = s.Value
			}
		}
	}
	return m
}

// syncTime is how long the disk takes for what an audit log does for each event: a small append, made durable.
func syncTime(dir string) string {
	f, err := os.Create(filepath.Join(dir, "sync"))
	if err != nil {
		return "not measured: " + err.Error()
	}
	defer f.Close()
	var took []float64
	for range 100 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 512)); err != nil {
			return "not measured: " + err.Error()
		}
		if err := f.Sync(); err != nil {
			return "not measured: " + err.Error()
		}
		took = append(took, time.Since(begin).Seconds())
	}
	return fmt.Sprintf("p50 %s µs, p99 %s µs", number(quantile(took, 0.5)*1e6), number(quantile(took, 0.99)*1e6))
}
