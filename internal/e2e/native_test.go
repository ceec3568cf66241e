package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// connect runs "fairlead connect" for a connection and gives the local port and what is on standard error so far.
func connect(t *testing.T, w *testenv.World, connection string) (port string, said func() string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "connect.log")
	env := []string{"HOME=" + w.Dir, "FAIRLEAD_RELAY=" + w.Address, "FAIRLEAD_TOKEN_FILE=" + w.TokenFile, "FAIRLEAD_CA=" + w.CAFile}
	start(t, env, log, program(t, "fairlead"), "connect", connection)
	said = func() string { b, _ := os.ReadFile(log); return string(b) }
	listening := regexp.MustCompile(`listening on 127\.0\.0\.1:(\d+) `)
	testenv.Eventually(t, "fairlead connect listens", func() bool { return listening.MatchString(said()) })
	return listening.FindStringSubmatch(said())[1], said
}

// TestNativeClients: psql and mariadb, unchanged, over the whole path; and refused where the profile does not allow it.
func TestNativeClients(t *testing.T) {
	psql, maria := need(t, "psql"), need(t, "mariadb", "mysql")
	w := databases(t, testenv.TLS, "", postgresql, mariadb)
	type native struct {
		e    *engine
		run  func(port, sql string) output
		what string
	}
	for _, c := range []native{
		{postgresql, func(port, sql string) output {
			return runProgram(t, []string{"PGPASSWORD=w-secret", "PGCONNECT_TIMEOUT=20"}, sql, psql, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", port, "-U", "writer",
				"-d", "sslmode=verify-full sslrootcert="+filepath.Join(w.Dir, "pg.pem")+" dbname=test")
		}, "psql"},
		{mariadb, func(port, sql string) output {
			return runProgram(t, []string{"MYSQL_PWD=w-secret"}, sql, maria, "--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", port, "-u", "writer", "--ssl-ca="+filepath.Join(w.Dir, "my.pem"),
				"--batch", "--skip-column-names", "test")
		}, "mariadb"},
	} {
		t.Run(c.what, func(t *testing.T) {
			port, _ := connect(t, w, c.e.name+"_native")
			if o := c.run(port, "select name from people order by id;"); o.Exit != 0 || o.Out != "Ada\nBo\n" {
				t.Fatalf("%s", o)
			}
			// Many rows, a session with state, an error of the server's own.
			rows := "select repeat('x', 1000) from people a, people b, people c, people d, people e, people f, people g, people h, people i, people j;"
			if o := c.run(port, rows); o.Exit != 0 || len(o.Out) != 1024*1001 {
				t.Fatalf("%d bytes, exit %d, %s", len(o.Out), o.Exit, o.Err)
			}
			if c.e == postgresql { // whose writer may have tables of its session
				if o := c.run(port, "create temporary table tt(a int); insert into tt values (42); select a from tt;"); o.Exit != 0 || o.Out != "42\n" {
					t.Fatalf("%s", o)
				}
			}
			if o := c.run(port, "select nothing from nowhere;"); o.Exit == 0 || !strings.Contains(o.Err, "nowhere") {
				t.Fatalf("%s", o)
			}
		})
		t.Run(c.what+" on a profile without dial", func(t *testing.T) {
			port, said := connect(t, w, c.e.name+"_guarded")
			if o := c.run(port, "select 1;"); o.Exit == 0 {
				t.Fatalf("a guarded profile was dialled: %s", o)
			}
			testenv.Eventually(t, "the reason", func() bool { return strings.Contains(said(), "refused by") })
			if !strings.Contains(said(), "database."+c.e.name+"_guarded.allow") {
				t.Errorf("the rule is not named: %s", said())
			}
		})
	}
}

// TestGuardedDatabaseIsNotReachedRaw: an allow list that covers a guarded profile's host and port does not open a way
// around its guard, by whatever name the host goes; what else the list admits is reached.
func TestGuardedDatabaseIsNotReachedRaw(t *testing.T) {
	s, _ := postgresql.open(t)
	echo := echoServer(t)
	_, echoPort, _ := net.SplitHostPort(echo.String())
	w := databases(t, testenv.TLS, fmt.Sprintf("allow:\n  - {cidr: 127.0.0.1/32, ports: [%d, %s]}\n  - {host: localhost, ports: [%d, %s]}\n", s.Port, echoPort, s.Port, echoPort), postgresql)
	dial := func(host string, port string) error {
		name := fmt.Sprintf("raw-%s-%s", regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(host, "-"), port)
		var p uint16
		fmt.Sscan(port, &p)
		if _, err := w.Client.CreateConnection(ctx, client.NewConnection{Name: name, Group: "default", Target: &client.Target{Host: host, Port: p}}); err != nil {
			return err
		}
		conn, err := w.Client.Dial(ctx, name)
		if err == nil {
			conn.Close()
		}
		return err
	}
	for _, host := range []string{"127.0.0.1", "localhost"} {
		if err := dial(host, echoPort); err != nil {
			t.Errorf("%s:%s is on the list and was refused: %v", host, echoPort, err)
		}
	}
	for _, host := range []string{"127.0.0.1", "localhost", "LOCALHOST", "localhost.", "::ffff:127.0.0.1", "0x7f.1", "127.1", "2130706433", "::1"} {
		err := dial(host, fmt.Sprint(s.Port))
		if c, _ := code(err); c != protocol.CodeDenied && c != protocol.CodeInvalid && c != protocol.CodeConflict {
			t.Errorf("%s:%d, a guarded database: got %v", host, s.Port, err)
		}
		if c, _ := code(err); c == protocol.CodeConflict {
			t.Errorf("%s: the test's own names collide", host)
		}
	}
}
