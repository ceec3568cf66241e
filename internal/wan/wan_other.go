//go:build !linux

package wan

import (
	"context"
	"errors"
	"os/exec"
)

var errLinux = errors.New("an emulated line wants Linux: network namespaces and TUN devices")

// Available says why there can be no line here; nil if there can.
func Available() error { return errLinux }

// Isolated reports whether this process is the near end.
func Isolated() bool { return false }

// Isolate is for Linux.
func Isolate(context.Context, []string) (int, error) { return 0, errLinux }

// Serve is for Linux.
func Serve(context.Context) error { return errLinux }

// Line is for Linux.
type Line struct{}

// Open is for Linux.
func Open(Config, string, []string) (*Line, error) { return nil, errLinux }

func (*Line) Start(*exec.Cmd) error       { return errLinux }
func (*Line) AtFar(func() error) error    { return errLinux }
func (*Line) Set(Config) error            { return errLinux }
func (*Line) Counts() (c Counts, _ error) { return c, errLinux }
func (*Line) Close() error                { return nil }

// Congestions is for Linux.
func Congestions() []string { return nil }
