package testenv

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/agent"
	"github.com/fairleadhq/fairlead/agent/enroll"
	"github.com/fairleadhq/fairlead/internal/config"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Transports that a world can be built on.
const (
	TLS = "tls" // yamux over TLS 1.3 on a loopback socket
	// WebSocket is the same inside a WebSocket to the relay's port.
	WebSocket = "websocket"
	// QUIC is QUIC, on the UDP port of the same number as the relay's port.
	QUIC   = "quic"
	Memory = "memory" // the in-process transport; identity is given, not proven
)

// Options say what world to build.
type Options struct {
	// YAML is the agent's configuration below "version: 1"; "DIR" in it becomes the world's own folder.
	YAML      string
	Transport string // "" means TLS
	// CertificateLifetime of agents; 0 means the default.
	CertificateLifetime time.Duration
	Drain               time.Duration // of both halves; 0 means 2 s
	RelayAudit          int64         // bytes that the relay's audit log may take; 0 means no cap
	LogLevel            slog.Level
	RelayConfig         func(*relay.Config) // changes relay.yaml's settings before the relay starts; nil changes nothing
}

// World is a running relay with an enrolled agent, and a client with the first admin token.
type World struct {
	Dir       string // the world's folder: relay/, agent/, agent.yaml and whatever the test puts there
	Relay     *relay.Relay
	Agent     *agent.Agent
	Client    *client.Client
	Address   string // of the relay
	CAFile    string
	Token     secret.Bytes
	TokenFile string
	YAMLFile  string

	Log *Log // of both halves

	tb        testing.TB
	opt       Options
	stopAgent func()
	stopRelay func()
}

// Log collects what both halves log. Safe for concurrent use.
type Log struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is everything so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// New builds a world and waits until the agent is connected. Everything is stopped and joined when the test ends; a
// failed test shows the log.
func New(tb testing.TB, o Options) *World {
	tb.Helper()
	w := Bare(tb, o)
	w.StartAgent()
	return w
}

// Bare builds a world whose agent is enrolled and not started.
func Bare(tb testing.TB, o Options) *World {
	tb.Helper()
	if o.Transport == "" {
		o.Transport = TLS
	}
	if o.Drain == 0 {
		o.Drain = 2 * time.Second
	}
	w := &World{Dir: tb.TempDir(), tb: tb, opt: o, Log: &Log{}}
	if err := os.Chmod(w.Dir, 0o755); err != nil { // other accounts (database servers) may look in
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("log of both halves:\n%s", tail(w.Log.String(), 60))
		}
	})
	ctx := context.Background()
	data := filepath.Join(w.Dir, "relay")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w.Address = net.JoinHostPort("localhost", port(ln.Addr()))
	first, err := relay.Init(ctx, relay.InitOptions{Data: data, Listen: ln.Addr().String(), PublicAddress: w.Address})
	if err != nil {
		tb.Fatal(err)
	}
	w.Token, w.CAFile, w.TokenFile = first.Token, first.RootFile, filepath.Join(w.Dir, "admin.token")
	if err := os.WriteFile(w.TokenFile, first.Token.Expose(), 0o600); err != nil {
		tb.Fatal(err)
	}
	w.startRelay(ln)
	w.Client = w.NewClient(w.Token)
	w.YAMLFile = filepath.Join(w.Dir, "agent.yaml")
	w.WriteYAML(o.YAML)
	w.Enroll("agent")
	return w
}

// NewClient makes a client with another token.
func (w *World) NewClient(token secret.Bytes) *client.Client {
	w.tb.Helper()
	c, err := client.New(client.Config{Relay: w.Address, Token: token, CAFile: w.CAFile})
	if err != nil {
		w.tb.Fatal(err)
	}
	w.tb.Cleanup(func() { c.Close() })
	return c
}

// startRelay serves on ln, or on the address of before when ln is nil.
func (w *World) startRelay(ln net.Listener) {
	w.tb.Helper()
	cfg, err := relay.LoadConfig(filepath.Join(w.Dir, "relay", "relay.yaml"))
	if err != nil {
		w.tb.Fatal(err)
	}
	if w.opt.CertificateLifetime != 0 {
		cfg.Agents.CertificateLifetime = config.Duration(w.opt.CertificateLifetime)
	}
	cfg.Audit.MaxSize = config.Size(w.opt.RelayAudit)
	cfg.Agents.QUIC = w.opt.Transport == QUIC
	if w.opt.RelayConfig != nil {
		w.opt.RelayConfig(&cfg)
	}
	r, err := relay.New(context.Background(), relay.Options{Config: cfg, Version: "test", Logger: w.logger("relay"), Listener: ln, Drain: w.opt.Drain})
	if err != nil {
		w.tb.Fatal(err)
	}
	w.Relay = r
	w.stopRelay = w.run("relay", r.Run)
	select {
	case <-r.Ready():
	case <-time.After(30 * time.Second):
		w.tb.Fatal("the relay did not come up")
	}
}

// RestartRelay stops the relay and starts it again on the same port and state.
func (w *World) RestartRelay() {
	w.tb.Helper()
	w.stopRelay()
	w.startRelay(nil)
}

// StopRelay stops the relay and waits until it has.
func (w *World) StopRelay() { w.stopRelay() }

// run starts a Run and returns what stops and joins it; the test's end does so at the latest.
func (w *World) run(name string, run func(context.Context) error) func() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.tb.Errorf("%s: %v", name, err)
			}
		case <-time.After(time.Minute):
			w.tb.Errorf("%s did not stop", name)
		}
	})
	w.tb.Cleanup(stop)
	return stop
}

func (w *World) logger(half string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: w.opt.LogLevel})).With("half", half)
}

// WriteYAML replaces agent.yaml.
func (w *World) WriteYAML(body string) {
	w.tb.Helper()
	if w.opt.Transport == WebSocket || w.opt.Transport == QUIC {
		body = "relay: {transport: " + w.opt.Transport + "}\n" + body
	}
	text := "version: 1\n" + strings.ReplaceAll(body, "DIR", filepath.ToSlash(w.Dir))
	tmp := w.YAMLFile + ".new"
	if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
		w.tb.Fatal(err)
	}
	if err := os.Rename(tmp, w.YAMLFile); err != nil {
		w.tb.Fatal(err)
	}
}

// JoinToken makes a join token.
func (w *World) JoinToken() string {
	w.tb.Helper()
	t, err := w.Client.CreateJoinToken(context.Background(), client.NewJoinToken{Group: "default"})
	if err != nil {
		w.tb.Fatal(err)
	}
	return t.Token
}

// Enroll enrols an agent into the folder dir of the world.
func (w *World) Enroll(dir string) *enroll.Identity {
	w.tb.Helper()
	token, err := mtls.ParseJoinToken(w.JoinToken())
	if err != nil {
		w.tb.Fatal(err)
	}
	var d net.Dialer
	id, err := enroll.Enroll(context.Background(), enroll.Request{Dir: filepath.Join(w.Dir, dir), Addrs: token.Addrs, Pin: token.Pin, Secret: token.SecretText(), Name: dir, Version: "test", Dial: d.DialContext})
	if err != nil {
		w.tb.Fatal(err)
	}
	return id
}

// StartAgent starts the enrolled agent and waits until the relay has welcomed it.
func (w *World) StartAgent() {
	w.tb.Helper()
	w.RunAgent()
	select {
	case <-w.Agent.Ready():
	case <-time.After(30 * time.Second):
		w.tb.Fatalf("the agent did not connect:\n%s", tail(w.Log.String(), 40))
	}
}

// RunAgent starts the enrolled agent and waits for nothing.
func (w *World) RunAgent() {
	w.tb.Helper()
	w.Agent, w.stopAgent = w.runAgent("agent")
}

// Another enrols one more agent of the group into the folder dir, with the same agent.yaml, starts it, and gives what stops it.
func (w *World) Another(dir string) (stop func()) {
	w.tb.Helper()
	w.Enroll(dir)
	a, stop := w.runAgent(dir)
	select {
	case <-a.Ready():
	case <-time.After(30 * time.Second):
		w.tb.Fatalf("the agent did not connect:\n%s", tail(w.Log.String(), 40))
	}
	return stop
}

func (w *World) runAgent(dir string) (*agent.Agent, func()) {
	w.tb.Helper()
	o := agent.Options{ConfigFile: w.YAMLFile, DataDir: filepath.Join(w.Dir, dir), Version: "test", Logger: w.logger("agent"), Poll: 200 * time.Millisecond, Drain: w.opt.Drain}
	if w.opt.Transport == Memory {
		id, err := enroll.Load(o.DataDir)
		if err != nil {
			w.tb.Fatal(err)
		}
		me := mtls.Identity{Installation: id.Installation, Role: mtls.RoleAgent, Workspace: id.Workspace, Group: id.Group, ID: id.Agent}
		o.Dial = func(context.Context, string) (tunnel.Tunnel, error) {
			a, b := tunnel.Memory(me, mtls.Identity{Installation: id.Installation, Role: mtls.RoleRelay, ID: "rel_memory"}, tunnel.DefaultConfig())
			go w.Relay.ServeTunnel(context.Background(), b)
			return a, nil
		}
	}
	a, err := agent.New(o)
	if err != nil {
		w.tb.Fatal(err)
	}
	return a, w.run(dir, a.Run)
}

// StopAgent stops the agent and waits until it has.
func (w *World) StopAgent() { w.stopAgent() }

// Connection makes a connection to a profile and returns its name.
func (w *World) Connection(profile string) string {
	w.tb.Helper()
	if _, err := w.Client.CreateConnection(context.Background(), client.NewConnection{Name: profile, Group: "default", Profile: profile}); err != nil {
		w.tb.Fatal(err)
	}
	return profile
}

// Eventually polls until ok, for what has no channel to wait on.
func Eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			tb.Fatalf("did not come: %s", what)
		case <-tick.C:
		}
	}
}

func port(a net.Addr) string {
	_, p, _ := net.SplitHostPort(a.String())
	return p
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(all) > lines {
		all = append([]string{fmt.Sprintf("… %d lines before", len(all)-lines)}, all[len(all)-lines:]...)
	}
	return strings.Join(all, "\n")
}

// RunSecondAgent runs another agent on the same data folder and returns why it could not.
func RunSecondAgent(w *World) error {
	a, err := agent.New(agent.Options{ConfigFile: w.YAMLFile, DataDir: filepath.Join(w.Dir, "agent"), Version: "test", Logger: w.logger("second agent")})
	if err != nil {
		return err
	}
	return a.Run(context.Background())
}

// HTTP is a plain HTTPS client that trusts the world's CA, for requests that the client library would not make.
func (w *World) HTTP() *http.Client {
	w.tb.Helper()
	pem, err := os.ReadFile(w.CAFile)
	if err != nil {
		w.tb.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		w.tb.Fatal("no CA certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	w.tb.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}
