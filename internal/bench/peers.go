package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// peer is another program that does a like job, with its start commands. ${NAME} stands for a program in capitals, and for
// what expand knows.
type peer struct {
	name, what   string
	programs     []string
	files        map[string]string
	prepare      [][]string // run to their end before the start
	relay, agent [][]string
}

// Each is set up as its documents advise for two authenticated ends: TLS 1.3 mutual, or SSH with keys both ways.
func peerList() []peer {
	frp := func(name, what, server, clientMore string) peer {
		return peer{name: name, what: what, programs: []string{"frps", "frpc"}, files: map[string]string{"frps.toml": `bindAddr = "${RELAY}"
bindPort = ${P1}
proxyBindAddr = "127.0.0.1"
transport.tls.force = true
transport.tls.certFile = "${CERTS}/relay.crt"
transport.tls.keyFile = "${CERTS}/relay.key"
transport.tls.trustedCaFile = "${CERTS}/ca.crt"
auth.token = "bench"
log.level = "warn"
` + server, "frpc.toml": `serverAddr = "${RELAY}"
serverPort = ${P1}
auth.token = "bench"
log.level = "warn"
transport.tls.enable = true
transport.tls.certFile = "${CERTS}/agent.crt"
transport.tls.keyFile = "${CERTS}/agent.key"
transport.tls.trustedCaFile = "${CERTS}/ca.crt"
transport.tls.serverName = "relay"
` + clientMore + `
[[proxies]]
name = "t"
type = "tcp"
localIP = "${TARGETHOST}"
localPort = ${TPORT}
remotePort = ${P2}
[[proxies]]
name = "pg"
type = "tcp"
localIP = "${TARGETHOST}"
localPort = ${PGPORT}
remotePort = ${P3}
`}, relay: [][]string{{"${FRPS}", "-c", "${WORK}/frps.toml"}}, agent: [][]string{{"${FRPC}", "-c", "${WORK}/frpc.toml"}}}
	}
	ssh := func(name, cipher string) peer {
		return peer{name: name, what: "OpenSSH, ssh -R, cipher " + cipher, programs: []string{"ssh", "sshd", "ssh-keygen"}, files: map[string]string{"sshd_config": `Port ${P1}
ListenAddress 127.0.0.1
HostKey ${WORK}/host
AuthorizedKeysFile ${WORK}/id.pub
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PasswordAuthentication no
AllowTcpForwarding yes
PidFile none
MaxStartups 200:30:400
`}, prepare: [][]string{{"${SSH_KEYGEN}", "-q", "-t", "ed25519", "-N", "", "-f", "${WORK}/host"}, {"${SSH_KEYGEN}", "-q", "-t", "ed25519", "-N", "", "-f", "${WORK}/id"}},
			relay: [][]string{{"${SSHD}", "-D", "-e", "-f", "${WORK}/sshd_config"}},
			agent: [][]string{{"${SSH}", "-N", "-F", "none", "-p", "${P1}", "-i", "${WORK}/id", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
				"-o", "ExitOnForwardFailure=yes", "-c", cipher, "-R", "127.0.0.1:${P2}:${TARGET}", "-R", "127.0.0.1:${P3}:${PG}", "${USER}@127.0.0.1"}}}
	}
	haproxy := func(far bool) string {
		text := "global\n  maxconn 8000\n  nbthread 2\n  ssl-default-bind-options ssl-min-ver TLSv1.3\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n"
		if far {
			return text + "listen t\n  bind 127.0.0.1:${P1} ssl crt ${CERTS}/relay.pem ca-file ${CERTS}/ca.crt verify required\n  server s ${TARGET}\n" +
				"listen pg\n  bind 127.0.0.1:${P4} ssl crt ${CERTS}/relay.pem ca-file ${CERTS}/ca.crt verify required\n  server s ${PG}\n"
		}
		return text + "listen t\n  bind 127.0.0.1:${P2}\n  server s 127.0.0.1:${P1} ssl crt ${CERTS}/agent.pem ca-file ${CERTS}/ca.crt verify required\n" +
			"listen pg\n  bind 127.0.0.1:${P3}\n  server s 127.0.0.1:${P4} ssl crt ${CERTS}/agent.pem ca-file ${CERTS}/ca.crt verify required\n"
	}
	stunnel := func(end string, ways ...string) string {
		text := "foreground = yes\npid =\ndebug = 3\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1\n"
		if end == "agent" {
			text += "client = yes\n"
		}
		for i, way := range ways {
			text += fmt.Sprintf("[w%d]\n%s\ncert = ${CERTS}/%s.pem\nCAfile = ${CERTS}/ca.crt\nverifyChain = yes\nsslVersion = TLSv1.3\n", i, way, end)
		}
		return text
	}
	ghost := func(role, listen, target string, more ...string) []string {
		end := map[string]string{"server": "relay", "client": "agent"}[role]
		return append([]string{"${GHOSTUNNEL}", role, "--listen", listen, "--target", target, "--cert", "${CERTS}/" + end + ".crt", "--key", "${CERTS}/" + end + ".key",
			"--cacert", "${CERTS}/ca.crt", "--quiet", "all"}, more...)
	}
	return []peer{
		frp("frp", "frp, defaults: a mux over one mutual TLS 1.3 connection", "", ""),
		frp("frp-nomux", "frp, tcpMux=false, poolCount=5: a TLS connection a stream", "transport.tcpMux = false\n", "transport.tcpMux = false\ntransport.poolCount = 5\n"),
		{name: "chisel", what: "chisel, reverse, mutual TLS 1.3 and SSH in it", programs: []string{"chisel"},
			relay: [][]string{{"${CHISEL}", "server", "--host", "127.0.0.1", "--port", "${P1}", "--reverse", "--tls-cert", "${CERTS}/relay.crt", "--tls-key", "${CERTS}/relay.key", "--tls-ca", "${CERTS}/ca.crt"}},
			agent: [][]string{{"${CHISEL}", "client", "--tls-ca", "${CERTS}/ca.crt", "--tls-cert", "${CERTS}/agent.crt", "--tls-key", "${CERTS}/agent.key", "https://127.0.0.1:${P1}",
				"R:127.0.0.1:${P2}:${TARGET}", "R:127.0.0.1:${P3}:${PG}"}}},
		{name: "ghostunnel", what: "ghostunnel, a forward pair (not reverse), mutual TLS 1.3, a connection a stream", programs: []string{"ghostunnel"},
			relay: [][]string{ghost("server", "127.0.0.1:${P1}", "${TARGET}", "--allow-cn", "agent"), ghost("server", "127.0.0.1:${P4}", "${PG}", "--allow-cn", "agent")},
			agent: [][]string{ghost("client", "127.0.0.1:${P2}", "127.0.0.1:${P1}"), ghost("client", "127.0.0.1:${P3}", "127.0.0.1:${P4}")}},
		{name: "haproxy", what: "haproxy, a forward pair (not reverse), mutual TLS 1.3", programs: []string{"haproxy"},
			files: map[string]string{"relay.cfg": haproxy(true), "agent.cfg": haproxy(false)},
			relay: [][]string{{"${HAPROXY}", "-db", "-f", "${WORK}/relay.cfg"}}, agent: [][]string{{"${HAPROXY}", "-db", "-f", "${WORK}/agent.cfg"}}},
		{name: "stunnel", what: "stunnel, a forward pair (not reverse), mutual TLS 1.3", programs: []string{"stunnel"},
			files: map[string]string{
				"relay.conf": stunnel("relay", "accept = 127.0.0.1:${P1}\nconnect = ${TARGET}", "accept = 127.0.0.1:${P4}\nconnect = ${PG}"),
				"agent.conf": stunnel("agent", "accept = 127.0.0.1:${P2}\nconnect = 127.0.0.1:${P1}", "accept = 127.0.0.1:${P3}\nconnect = 127.0.0.1:${P4}")},
			relay: [][]string{{"${STUNNEL}", "${WORK}/relay.conf"}}, agent: [][]string{{"${STUNNEL}", "${WORK}/agent.conf"}}},
		ssh("ssh-R", "chacha20-poly1305@openssh.com"),
		ssh("ssh-R-aesgcm", "aes128-gcm@openssh.com"),
	}
}

// capitals is a program's name in ${…} and, behind FAIRLEAD_BENCH_, the environment variable that says where it is.
func capitals(program string) string {
	return strings.ToUpper(strings.ReplaceAll(program, "-", "_"))
}

// locate finds a peer's programs: by the environment, on PATH, and where servers are kept.
func locate(programs []string) (map[string]string, error) {
	found := map[string]string{}
	for _, p := range programs {
		name := "FAIRLEAD_BENCH_" + capitals(p)
		path := os.Getenv(name)
		if path == "" {
			path, _ = exec.LookPath(p)
		}
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin"} {
			if path == "" {
				path, _ = exec.LookPath(filepath.Join(dir, p))
			}
		}
		if path == "" {
			return nil, fmt.Errorf("%s is not on PATH; %s can say where it is", p, name)
		}
		path, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		found[capitals(p)] = path
	}
	return found, nil
}

// peers are the other programs; one that is not found is named with the reason.
func (b *bench) peers() (list []*system) {
	for _, p := range peerList() {
		s := &system{SystemInfo: SystemInfo{Name: p.name, What: p.what}}
		programs, err := locate(p.programs)
		if err != nil {
			s.Missing = err.Error()
		}
		s.start = func(ctx context.Context, dir string) (*instance, error) { return b.startPeer(ctx, p, programs, dir) }
		list = append(list, s)
	}
	return list
}

func (b *bench) startPeer(ctx context.Context, p peer, programs map[string]string, dir string) (_ *instance, err error) {
	words := []string{"${CERTS}", b.certs, "${WORK}", dir, "${TARGET}", b.target, "${PG}", cmpOr(b.pgAddr(), b.target), "${RELAY}", b.nearHost(), "${TARGETHOST}", b.farHost()}
	for name, path := range programs {
		words = append(words, "${"+name+"}", path)
	}
	for name, addr := range map[string]string{"${TPORT}": b.target, "${PGPORT}": cmpOr(b.pgAddr(), b.target)} {
		_, port, err := splitAddr(addr)
		if err != nil {
			return nil, err
		}
		words = append(words, name, port)
	}
	var at [5]int
	for k := 1; k < len(at); k++ {
		if at[k], err = b.ports.take(); err != nil {
			return nil, err
		}
		words = append(words, fmt.Sprintf("${P%d}", k), strconv.Itoa(at[k]))
	}
	if me, err := user.Current(); err == nil {
		words = append(words, "${USER}", me.Username)
	}
	expand := strings.NewReplacer(words...)
	for name, text := range p.files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(expand.Replace(text)), 0o600); err != nil {
			return nil, err
		}
	}
	argv := func(line []string) (out []string) {
		for _, w := range line {
			out = append(out, expand.Replace(w))
		}
		return out
	}
	for _, line := range p.prepare {
		if _, err := run(ctx, nil, argv(line)...); err != nil {
			return nil, err
		}
	}
	i := &instance{raw: loopback(at[2])}
	if b.pg != nil {
		i.pg = loopback(at[3])
	}
	defer func() {
		if err != nil {
			i.end()
		}
	}()
	for k, line := range p.relay {
		proc, err := start(dir, fmt.Sprintf("%s-relay%d", p.name, k), nil, argv(line)...)
		if err != nil {
			return i, err
		}
		i.relay = append(i.relay, proc)
	}
	host := "127.0.0.1"
	if slices.Contains(wanSystems, p.name) {
		host = b.nearHost()
	}
	// The relay side must listen before some of them dial: they do not try again.
	if err := every(ctx, readyTime, func(ctx context.Context) error {
		c, err := dial(ctx, net.JoinHostPort(host, strconv.Itoa(at[1])))
		if err != nil {
			return err
		}
		return c.Close()
	}, i.relay...); err != nil {
		return i, err
	}
	for k, line := range p.agent {
		proc, err := b.startFar(dir, fmt.Sprintf("%s-agent%d", p.name, k), argv(line)...)
		if err != nil {
			return i, err
		}
		i.agent = append(i.agent, proc)
	}
	if err := i.ready(ctx); err != nil {
		said := ""
		for _, proc := range i.all() {
			said += " " + proc.name + ": " + proc.tail()
		}
		return i, errors.Join(err, errors.New(clip(said, 400)))
	}
	return i, nil
}
