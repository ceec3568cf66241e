//go:build unix

package servers

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// account is the user that a server runs as: its own when the tests run as root, for servers refuse to be root.
type account struct {
	uid, gid uint32
	root     bool
}

func lookup(name string) (*account, error) {
	a := &account{root: os.Geteuid() == 0}
	if !a.root {
		return a, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, errMissing)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	a.uid, a.gid = uint32(uid), uint32(gid)
	return a, err
}

func (a *account) use(cmd *exec.Cmd) {
	// A process group of its own, so that an interrupt at the terminal reaches the tests alone and they stop the server.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if a.root {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
}

func (a *account) own(paths ...string) error {
	if !a.root {
		return nil
	}
	for _, p := range paths {
		if err := os.Chown(p, int(a.uid), int(a.gid)); err != nil {
			return err
		}
	}
	return nil
}

// watch runs a server until it ends by itself or file 3, whose other end this process holds, is closed: by end, or by the
// death of this process. SIGINT is PostgreSQL's fast shutdown, SIGTERM is MariaDB's.
const watch = `dir=$1; shift
"$@" 3<&- & pid=$!
{ cat <&3; kill -TERM $pid; kill -INT $pid; } >/dev/null 2>&1 & watcher=$!
exec 3<&-
wait $pid; status=$?
kill $watcher 2>/dev/null
cd / && rm -rf "$dir"
exit $status`

// server is the command that runs a server in dir, and what ends it.
func (a *account) server(dir, name string, args ...string) (*exec.Cmd, func(), error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", watch, "sh", dir, name}, args...)...)
	a.use(cmd)
	cmd.ExtraFiles = []*os.File{r}
	return cmd, func() { _ = w.Close(); _ = r.Close() }, nil
}
