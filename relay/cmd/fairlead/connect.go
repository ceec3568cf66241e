package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/splice"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// maxConns bounds the native connections that one "connect" carries at a time.
const maxConns = 256

type connectCommand struct {
	Connection string `arg:"" help:"Name of the connection."`
	Listen     string `default:"127.0.0.1:0" placeholder:"ADDRESS:PORT" help:"Where native clients connect to; port 0 picks a free one."`
	Stdio      bool   `help:"Carry one connection over standard input and output instead (for ssh ProxyCommand and the like)."`
}

func (*connectCommand) Examples() []string {
	return []string{
		"fairlead connect sales --listen 127.0.0.1:5433", "# then, in another terminal", "psql -h 127.0.0.1 -p 5433 -U reader sales",
		"# ssh to a host behind the agent", "ssh -o ProxyCommand='fairlead connect bastion --stdio' user@bastion",
	}
}

func (k *connectCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if k.Stdio {
		return stdio(ctx, t, c, k.Connection)
	}
	info, err := c.Connection(ctx, k.Connection)
	if err != nil {
		return about(k.Connection, err)
	}
	ln, err := net.Listen("tcp", k.Listen)
	if err != nil {
		return fmt.Errorf("listen for native clients: %w", err)
	}
	addr := ln.Addr().(*net.TCPAddr)
	if !addr.IP.IsLoopback() {
		t.Notef("WARNING: %s can be reached from other machines; whoever reaches it uses your rights on %s\n", addr, cli.Clean(k.Connection))
	}
	t.Notef("listening on %s for %s; stop with Ctrl-C\n", addr, cli.Clean(k.Connection))
	if how := hint(info.Adapter, addr); how != "" {
		t.Notef("  %s\n", how)
	}
	d := &dialer{c: c, connection: k.Connection}
	defer d.close()
	_, _ = d.open(ctx) // so that the first client need not wait for it; why it failed is told to the first that comes
	return serve(ctx, t, d, ln)
}

// hint says what to run against the local port.
func hint(adapter string, addr *net.TCPAddr) string {
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	switch adapter {
	case "postgresql", "redshift":
		return fmt.Sprintf("psql -h %s -p %d -U USER DATABASE", host, addr.Port)
	case "mysql":
		return fmt.Sprintf("mysql --protocol=tcp -h %s -P %d -u USER -p DATABASE", host, addr.Port)
	case "sqlserver":
		return fmt.Sprintf("sqlcmd -S tcp:%s,%d -U USER", host, addr.Port)
	case "oracle":
		return fmt.Sprintf("sqlplus USER@//%s/SERVICE", net.JoinHostPort(host, fmt.Sprint(addr.Port)))
	}
	return ""
}

// serve carries native connections until ctx ends; then it closes those that are open and waits for them.
func serve(ctx context.Context, t *cli.Term, d *dialer, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxConns)
	var mu sync.Mutex // guards t
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		local, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil // Ctrl-C is the way to end it
			}
			return fmt.Errorf("listen for native clients: %w", err)
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer local.Close()
			remote, err := d.dial(ctx)
			if err == nil {
				w := &watched{Conn: remote, local: local}
				splice.Both(ctx, local, w)
				err = w.refused
			}
			if err != nil && ctx.Err() == nil {
				reset(local)
				mu.Lock()
				cli.Fail(t, fmt.Errorf("client %s: %w", local.RemoteAddr(), err), false)
				mu.Unlock()
			}
		})
	}
}

// stdio carries one connection over standard input and output.
func stdio(ctx context.Context, t *cli.Term, c *client.Client, connection string) error {
	remote, err := c.Dial(ctx, connection)
	if err != nil {
		return err
	}
	defer remote.Close()
	stop := context.AfterFunc(ctx, func() { remote.Close() })
	defer stop()
	// Reading standard input cannot be interrupted, so this copy is not waited for: the process ends after Run.
	go func() {
		_, _ = io.Copy(remote, t.In)
		_ = remote.CloseWrite()
	}()
	if _, err := io.Copy(t.Out, remote); err != nil && ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
		return &protocol.Error{Code: protocol.CodeInterrupted, Message: "the connection broke off", Cause: err}
	}
	return ctx.Err()
}
