package bench

import (
	"os"
	"strings"
)

func cpuModel() string    { return entry("/proc/cpuinfo", "model name", ":") }
func totalMemory() string { return entry("/proc/meminfo", "MemTotal", ":") }
func kernel() string      { return firstLine("/proc/sys/kernel/osrelease") }

func distribution() string { return strings.Trim(entry("/etc/os-release", "PRETTY_NAME", "="), `"`) }

func congestionControl() string { return firstLine("/proc/sys/net/ipv4/tcp_congestion_control") }

// entry is the value of a key in a file of lines.
func entry(file, key, sep string) string {
	b, _ := os.ReadFile(file)
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, sep); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func firstLine(file string) string {
	b, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
