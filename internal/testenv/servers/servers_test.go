package servers

import (
	"net"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestServersAcceptConnections(t *testing.T) {
	for name, get := range map[string]func(testing.TB) *Server{"postgresql": PostgreSQL, "mariadb": MariaDB} {
		t.Run(name, func(t *testing.T) {
			s := get(t)
			if s.Port >= 32768 {
				t.Errorf("port %d is in the range of outgoing connections", s.Port)
			}
			if again := get(t); again != s {
				t.Error("a second call started a second server")
			}
			conn, err := net.DialTimeout("tcp", s.Addr(), 5*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Close()
			if _, err := os.Stat(s.CAFile); err != nil {
				t.Error(err)
			}
		})
	}
}
