//go:build !windows

package uplink

import "syscall"

const errConnAborted = syscall.ECONNABORTED
