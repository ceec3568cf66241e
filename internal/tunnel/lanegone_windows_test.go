package tunnel_test

import "golang.org/x/sys/windows"

const timedOut = windows.WSAETIMEDOUT
