// Package plan keeps a workspace in YAML files: it holds what they say against what the relay has, lists the steps between the
// two, and takes them by the ordinary API.
//
// Things are matched by name. A section that no file has is left alone; one that is there is whole, yet what it does not name is
// deleted only when that is asked for. Every step is a request like any other, with If-Match where something is there already, so
// that rights, step-up, guards and audit are those of the relay: the package decides nothing that the relay must decide. A step
// that fails ends the run, and the same run goes on where it ended, for it begins by looking.
//
// Files hold no secrets. What is shown once (a user's one-time code) is given to the caller and kept nowhere.
package plan
