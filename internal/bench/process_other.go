//go:build !linux

package bench

import (
	"errors"
	"os"
	"os/exec"
)

var errAccounting = errors.New("process accounting is read from /proc, which only Linux has")

func endWithParent(*exec.Cmd) {}

func askToEnd(p *os.Process) error { return p.Signal(os.Interrupt) }

type usage struct{}

func account() (*usage, error)         { return nil, errAccounting }
func (*usage) of(...int) float64       { return 0 }
func machineBusy() (float64, error)    { return 0, errAccounting }
func dirty(...int) (float64, error)    { return 0, errAccounting }
func descriptors(int) (float64, error) { return 0, errAccounting }
func cpuModel() string                 { return "" }
func totalMemory() string              { return "" }
func kernel() string                   { return "" }
func distribution() string             { return "" }
func congestionControl() string        { return "" }
