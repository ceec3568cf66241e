package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// endWithParent makes the kernel end the process when the harness dies, so that nothing is left running.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func askToEnd(p *os.Process) error { return p.Signal(syscall.SIGTERM) }

// usage is what the kernel has accounted, per process.
type usage struct {
	parent map[int]int
	cpu    map[int]float64 // seconds, with those of children that have ended
}

// account reads the CPU time of every process, from /proc/PID/stat.
func account() (*usage, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	u := &usage{map[int]int{}, map[int]float64{}}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name stands in brackets and may hold anything; behind it the fields are plain. Field 3 of the manual is f[0].
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(f) < 15 {
			continue
		}
		u.parent[pid], _ = strconv.Atoi(f[1])
		var ticks float64
		for _, s := range f[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseFloat(s, 64)
			ticks += n
		}
		u.cpu[pid] = ticks / ticksPerSecond
	}
	return u, nil
}

// tree is the processes named and all that descend from them.
func (u *usage) tree(pids ...int) (all []int) {
	for pid := range u.cpu {
		for p, depth := pid, 0; p > 1 && depth < 64; p, depth = u.parent[p], depth+1 {
			if slices.Contains(pids, p) {
				all = append(all, pid)
				break
			}
		}
	}
	return all
}

// of sums up the CPU seconds of the processes and all that descend from them.
func (u *usage) of(pids ...int) (sum float64) {
	for _, pid := range u.tree(pids...) {
		sum += u.cpu[pid]
	}
	return sum
}

// machineBusy is the CPU time that the whole machine has spent, what its host took away included.
func machineBusy() (float64, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(strings.SplitN(string(b), "\n", 2)[0])
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", f)
	}
	var ticks float64
	for i, s := range f[1:9] {
		if i == 3 || i == 4 { // idle, iowait
			continue
		}
		n, _ := strconv.ParseFloat(s, 64)
		ticks += n
	}
	return ticks / ticksPerSecond, nil
}

// descriptors is how many files, sockets and the like a process has open.
func descriptors(pid int) (float64, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return float64(len(entries)), err
}

// dirty is the memory that is written and belongs to one process alone, in KiB, summed over the processes and all that descend
// from them.
func dirty(pids ...int) (sum float64, err error) {
	u, err := account()
	if err != nil {
		return 0, err
	}
	for _, pid := range u.tree(pids...) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		found := false
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Private_Dirty:" {
				kb, err := strconv.ParseFloat(f[1], 64)
				if err != nil {
					return 0, err
				}
				sum, found = sum+kb, true
			}
		}
		if !found {
			return 0, fmt.Errorf("/proc/%d/smaps_rollup tells no Private_Dirty", pid)
		}
	}
	return sum, nil
}
