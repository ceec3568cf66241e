package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/relay/client"
)

// site is Fairlead as people run it: the built programs, each a process, set up by their own commands. Policy is the
// agent's file, audit is on at both ends, as it always is.
type site struct {
	b       *bench
	dir     string
	address string
	health  string
	env     []string // of the command fairlead
	client  *client.Client
	relay   *process
	agent   *process
	idle    int  // profiles for idle streams
	quic    bool // agent and relay speak QUIC alone
}

// perProfile is how many idle streams a profile carries: an agent has at most 64 open for each.
const perProfile = 50

func idleProfile(k int) string { return fmt.Sprintf("idle%02d", k) }

func (s *site) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (b *bench) program(name string) string { return filepath.Join(b.opt.Bin, name+exeSuffix) }

// newSite makes an installation whose relay and agent run, with room for as many idle streams; with quic, the tunnel is QUIC.
func (b *bench) newSite(ctx context.Context, dir string, streams int, quic bool) (*site, error) {
	s := &site{b: b, dir: dir, idle: (streams + perProfile - 1) / perProfile, quic: quic}
	if err := s.setUp(ctx); err != nil {
		s.stop()
		return nil, fmt.Errorf("set up Fairlead: %w", err)
	}
	return s, nil
}

func (s *site) setUp(ctx context.Context) error {
	for way, at := range map[*string]func(int) string{&s.address: s.b.near, &s.health: loopback} {
		port, err := s.b.ports.take()
		if err != nil {
			return err
		}
		*way = at(port)
	}
	token := s.path("admin.token")
	if _, err := run(ctx, nil, s.b.program("fairlead-relay"), "init", "--data", s.path("relay"), "--listen", s.address, "--public-address", s.address,
		"--health", s.health, "--token-file", token,
		"--allow", "127.0.0.1/32,"+s.b.nearHost()+"/32"); err != nil {
		return err
	}
	if s.b.hasGateways(ctx) {
		// The operator says which ports gateways may use.
		if err := appendTo(s.path("relay/relay.yaml"), "gateway:\n  addresses: [\"127.0.0.1:10000-32767\"]\n"); err != nil {
			return err
		}
	}
	if s.quic {
		if err := appendTo(s.path("relay/relay.yaml"), "agents: {quic: true}\n"); err != nil {
			return err
		}
	}
	if err := s.setCongestion(s.path("relay/relay.yaml"), "congestion: %s\n"); err != nil {
		return err
	}
	s.env = []string{"HOME=" + s.dir, "FAIRLEAD_RELAY=" + s.address, "FAIRLEAD_TOKEN_FILE=" + token, "FAIRLEAD_CA=" + s.path("relay/ca.pem")}
	text, err := os.ReadFile(token)
	if err != nil {
		return err
	}
	s.client, err = client.New(client.Config{Relay: s.address, Token: secret.FromString(strings.TrimSpace(string(text))), CAFile: s.path("relay/ca.pem")})
	if err != nil {
		return err
	}
	if err := s.startRelay(ctx); err != nil {
		return err
	}
	if err := s.offer(ctx); err != nil {
		return err
	}
	join, err := s.fairlead(ctx, "join-token", "create", "--group", "default")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("join.token"), []byte(join), 0o600); err != nil {
		return err
	}
	if _, err := run(ctx, nil, s.b.program("fairlead-agent"), "enroll", "--data", s.path("agent"), "--token-file", s.path("join.token")); err != nil {
		return err
	}
	return s.startAgent(ctx)
}

// offer writes agent.yaml and makes a connection to each profile of it.
func (s *site) offer(ctx context.Context) error {
	if err := os.MkdirAll(s.path("files"), 0o700); err != nil {
		return err
	}
	host, port, err := net.SplitHostPort(s.b.target)
	if err != nil {
		return err
	}
	yaml := fmt.Sprintf("version: 1\nlog: {level: warn}\nfiles:\n  bulk: {base: %q, allow: [list, read, write, delete]}\ntcp:\n  target: {host: %s, port: %s}\n",
		s.path("files"), host, port)
	profiles := []string{"bulk", "target"}
	for k := range s.idle {
		yaml += fmt.Sprintf("  %s: {host: %s, port: %s}\n", idleProfile(k), host, port)
		profiles = append(profiles, idleProfile(k))
	}
	if pg := s.b.pg; pg != nil {
		if err := os.WriteFile(s.path("reader.pw"), []byte(pg.readerPassword+"\n"), 0o600); err != nil {
			return err
		}
		yaml += fmt.Sprintf("  pg: {host: %s, port: %d}\n", pg.Host, pg.Port)
		yaml += fmt.Sprintf("database:\n  rows:\n    adapter: postgresql\n    host: %s\n    port: %d\n    database: %s\n    username: %s\n    password_file: reader.pw\n"+
			"    tls: disable\n    allow: {mode: read_only, timeout: 10m}\n", pg.Host, pg.Port, pg.Database, pgReader)
		profiles = append(profiles, "pg", "rows")
	}
	if s.quic {
		yaml += "relay: {transport: quic}\n"
	}
	if err := os.WriteFile(s.path("agent.yaml"), []byte(yaml), 0o600); err != nil {
		return err
	}
	if err := s.setCongestion(s.path("agent.yaml"), "relay: {congestion: %s}\n"); err != nil {
		return err
	}
	for _, p := range profiles {
		if _, err := s.fairlead(ctx, "connections", "create", p, "--group", "default", "--profile", p); err != nil {
			return err
		}
	}
	return nil
}

func (s *site) fairlead(ctx context.Context, args ...string) (string, error) {
	return run(ctx, s.env, append([]string{s.b.program("fairlead")}, args...)...)
}

func (s *site) startRelay(ctx context.Context) (err error) {
	if s.relay, err = start(s.dir, "relay", nil, s.b.program("fairlead-relay"), "serve", "--data", s.path("relay")); err != nil {
		return err
	}
	return every(ctx, 60*time.Second, func(ctx context.Context) error {
		_, err := s.client.Whoami(ctx)
		return err
	}, s.relay)
}

func (s *site) startAgent(ctx context.Context) (err error) {
	if s.agent, err = s.b.startFar(s.dir, "agent", s.b.program("fairlead-agent"), "run", "--config", s.path("agent.yaml"), "--data", s.path("agent")); err != nil {
		return err
	}
	return s.answers(ctx)
}

// answers waits until the agent answers a request.
func (s *site) answers(ctx context.Context) error {
	return every(ctx, 60*time.Second, func(ctx context.Context) error {
		_, err := s.client.Stat(ctx, "bulk", "", "")
		return err
	}, s.relay, s.agent)
}

// restart starts relay and agent anew, so that their memory is that of the start.
func (s *site) restart(ctx context.Context) error {
	s.agent.stop()
	s.relay.stop()
	if err := s.startRelay(ctx); err != nil {
		return err
	}
	return s.startAgent(ctx)
}

func (s *site) stop() {
	s.agent.stop()
	s.relay.stop()
	if s.client != nil {
		s.client.Close()
	}
}

// connect runs "fairlead connect" for a connection and gives its local address.
func (s *site) connect(ctx context.Context, connection string) (string, *process, error) {
	port, err := s.b.ports.take()
	if err != nil {
		return "", nil, err
	}
	p, err := start(s.dir, "connect-"+connection, s.env, s.b.program("fairlead"), "connect", connection, "--listen", loopback(port))
	return loopback(port), p, err
}

// hasGateways asks the command line whether this build can give a connection a port at the relay.
func (b *bench) hasGateways(ctx context.Context) bool {
	out, _ := run(ctx, nil, b.program("fairlead"), "connections", "create", "--help")
	return strings.Contains(out, "--gateway")
}

// gateway makes a connection with a port at the relay and gives that address.
func (s *site) gateway(ctx context.Context, profile string) (string, error) {
	port, err := s.b.ports.take()
	if err != nil {
		return "", err
	}
	_, err = s.fairlead(ctx, "connections", "create", profile+"-gateway", "--group", "default", "--profile", profile, "--gateway", loopback(port),
		"--gateway-allow", "127.0.0.1")
	return loopback(port), err
}

// fairlead is our own system by one of its entrances: the command "fairlead connect", a gateway port of the relay, or the
// API. Entrances that share a site load the same two processes, in turn.
func (b *bench) fairlead(name, what string) *system {
	sys := &system{SystemInfo: SystemInfo{Name: name, What: what}}
	sys.start = func(ctx context.Context, dir string) (*instance, error) {
		s, own, err := b.siteFor(ctx, dir, name == sysQUIC)
		if err != nil {
			return nil, err
		}
		i, err := s.entrance(ctx, name)
		if own {
			i.stop = s.stop
		}
		if err == nil && i.raw != "" {
			err = i.ready(ctx)
		}
		if err != nil {
			for _, p := range i.front {
				p.stop()
			}
			if own {
				s.stop()
			}
			return nil, err
		}
		return i, nil
	}
	return sys
}

// siteFor is the installation that the entrances share, or one of its own where nothing else may have used memory.
func (b *bench) siteFor(ctx context.Context, dir string, quic bool) (_ *site, own bool, err error) {
	if filepath.Base(dir) != sharedFolder {
		s, err := b.newSite(ctx, dir, b.opt.Streams, quic)
		return s, true, err
	}
	shared, name := &b.site, "site"
	if quic {
		shared, name = &b.quic, "site-quic"
	}
	if *shared == nil {
		site, err := b.folder(name)
		if err != nil {
			return nil, false, err
		}
		if *shared, err = b.newSite(ctx, site, 0, quic); err != nil {
			return nil, false, err
		}
	}
	return *shared, false, nil
}

// entrance opens one way into the site. What it gives with an error must still be stopped.
func (s *site) entrance(ctx context.Context, name string) (*instance, error) {
	i := &instance{api: s.client, relay: []*process{s.relay}, agent: []*process{s.agent}}
	connections := []string{"target"}
	if s.b.pg != nil {
		connections = append(connections, "pg")
	}
	into := map[string]*string{"target": &i.raw, "pg": &i.pg}
	switch name {
	case sysConnect:
		for _, c := range connections {
			addr, p, err := s.connect(ctx, c)
			if err != nil {
				return i, err
			}
			*into[c], i.front = addr, append(i.front, p)
		}
		// The command carries a limited number at a time; what an idle stream costs the two sides is the same without it.
		i.open = func(ctx context.Context, k int) (io.Closer, error) {
			c, err := s.client.Dial(ctx, idleProfile(k%s.idle))
			if err != nil {
				return nil, err
			}
			return opened(c)
		}
	case sysGateway, sysQUIC:
		for _, c := range connections {
			addr, err := s.gateway(ctx, c)
			if err != nil {
				return i, err
			}
			*into[c] = addr
		}
		ways := make([]string, s.idle)
		for k := range ways {
			var err error
			if ways[k], err = s.gateway(ctx, idleProfile(k)); err != nil {
				return i, err
			}
		}
		i.open = func(ctx context.Context, k int) (io.Closer, error) {
			c, err := dial(ctx, ways[k%len(ways)])
			if err != nil {
				return nil, err
			}
			return opened(c)
		}
	}
	return i, nil
}

// opened uses a new stream once.
func opened(c net.Conn) (io.Closer, error) {
	if err := echo(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// echo sends a byte to the target and awaits it.
func echo(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte{modeEcho, 'x'}); err != nil {
		return err
	}
	var got [1]byte
	if _, err := c.Read(got[:]); err != nil {
		return err
	}
	return c.SetDeadline(time.Time{})
}
