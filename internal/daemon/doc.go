// Package daemon runs a program under the service manager of its system and installs it there: systemd on Linux, the
// service control manager on Windows, launchd on macOS (through kardianos/service, as on Windows).
//
// It promises: the program sees one context that ends when it is to stop, and has its drain time while the manager is
// told that the stop goes on; the manager hears "ready" only when the program said so; the service runs under an account
// of its own without privileges; a service that ends by itself, by crash or by error status, is started again; an
// install that fails leaves nothing behind; memory that a burst of work took is given back to the system soon after it.
//
// It never writes a secret or an environment variable into a unit or the registry, and never runs the service as root or
// LocalSystem.
package daemon
