//go:build unix

package tunnel_test

import "syscall"

const timedOut = syscall.ETIMEDOUT
