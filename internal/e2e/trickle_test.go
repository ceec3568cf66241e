package e2e_test

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/testenv"
)

// E13: who has a token cannot hold a stream to a site by sending a byte now and then, and nothing is written.
func TestUploadThatTricklesIsCutOnTheWay(t *testing.T) {
	t.Parallel()
	t.Run("E13 a byte every two seconds", func(t *testing.T) {
		w := shop(t, testenv.Options{Transport: testenv.Memory})
		w.Connection("papers")
		conn := people(t, w)
		if _, err := io.WriteString(conn, "PUT /api/v1/workspaces/default/connections/papers/files/up.txt HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+w.Token.ExposeString()+
			"\r\nContent-Length: 1000000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		began, ended := time.Now(), make(chan struct{})
		go func() {
			defer close(ended)
			tick := time.NewTicker(2 * time.Second)
			defer tick.Stop()
			for range tick.C {
				if _, err := io.WriteString(conn, "x"); err != nil {
					return
				}
			}
		}()
		_ = conn.SetReadDeadline(began.Add(90 * time.Second))
		_, err := io.Copy(io.Discard, conn)
		took := time.Since(began)
		conn.Close()
		<-ended
		if e, ok := err.(interface{ Timeout() bool }); ok && e.Timeout() || took < 50*time.Second {
			t.Errorf("the conn ended after %s: %v", took, err)
		}
		if _, err := os.Stat(filepath.Join(w.Dir, "papers", "up.txt")); !os.IsNotExist(err) {
			t.Errorf("a file was written: %v", err)
		}
	})
}
