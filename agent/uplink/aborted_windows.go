package uplink

import "golang.org/x/sys/windows"

// errConnAborted is how Windows tells of a connection that was cut.
const errConnAborted = windows.WSAECONNABORTED
