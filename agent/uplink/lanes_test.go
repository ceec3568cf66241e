package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

func askLanes(t *testing.T, p *lanes, method, body string) int {
	t.Helper()
	w := httptest.NewRecorder()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+protocol.PathLanes, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	p.ask(w, r)
	return w.Code
}

func tickets(n int) string {
	b, _ := json.Marshal(protocol.Lanes{Tickets: func() (ts [][]byte) {
		for range n {
			ts = append(ts, make([]byte, tunnel.TicketSize))
		}
		return ts
	}()})
	return string(b)
}

// A hostile relay can make the site dial no more than its file says, and not often.
func TestRelayCannotMakeTheSiteDialForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		held := make(chan struct{})
		p := newLanes(t.Context(), 4, &http.Server{}, func(string, ...any) {}, func(ctx context.Context, _ []byte) (*tunnel.Lane, error) {
			dials.Add(1)
			select {
			case <-held:
			case <-ctx.Done():
			}
			return nil, errors.New("no way")
		})
		for range 1000 {
			askLanes(t, p, "POST", tickets(1))
			askLanes(t, p, "POST", tickets(16))
		}
		synctest.Wait()
		if n := dials.Load(); n > 4 {
			t.Errorf("%d dials at a time where 4 are allowed", n)
		}
		close(held)
		synctest.Wait()
		dials.Store(0)
		for range 10_000 { // each dial fails at once: the rate alone bounds them
			askLanes(t, p, "POST", tickets(1))
			synctest.Wait()
			<-time.After(time.Millisecond) // of the bubble's clock
		}
		if n := dials.Load(); n < 20 || n > laneBurst+10*laneRate+1 {
			t.Errorf("%d dials in ten seconds", n)
		}
		p.close()
		if code := askLanes(t, p, "POST", tickets(1)); code == http.StatusOK {
			t.Error("a lane after the end")
		}
	})
}

func TestMalformedRequestForLanesIsRefused(t *testing.T) {
	p := newLanes(t.Context(), 8, &http.Server{}, func(string, ...any) {}, func(context.Context, []byte) (*tunnel.Lane, error) {
		t.Error("dialled")
		return nil, errors.New("no")
	})
	defer p.close()
	for name, c := range map[string][2]string{
		"GET": {"GET", tickets(1)}, "not JSON": {"POST", "x"}, "17 tickets": {"POST", tickets(17)}, "a short ticket": {"POST", `{"tickets":["AAAA"]}`},
		"huge": {"POST", `{"tickets":["` + strings.Repeat("A", 1<<20) + `"]}`},
	} {
		if code := askLanes(t, p, c[0], c[1]); code != http.StatusBadRequest {
			t.Errorf("%s: status %d", name, code)
		}
	}
	none := newLanes(t.Context(), 0, &http.Server{}, func(string, ...any) {}, nil)
	defer none.close()
	if code := askLanes(t, none, "POST", tickets(1)); code == http.StatusOK {
		t.Error("a site that wants no lanes opens one")
	}
}
