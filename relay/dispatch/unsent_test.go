package dispatch_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// unwilling adds an agent whose tunnel takes no stream: it has ended and nobody has called Remove yet, or all its streams are in use.
func unwilling(t *testing.T, g *rig, how string) {
	t.Helper()
	ws, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	cfg := tunnel.DefaultConfig()
	cfg.MaxStreams = 1
	site, relay := tunnel.Memory(mtls.Identity{Installation: "in_x", Role: mtls.RoleAgent, Workspace: ws.ID, Group: ws.Groups[0].ID, ID: "agt_unwilling"},
		mtls.Identity{Installation: "in_x", Role: mtls.RoleRelay, ID: "rel_x"}, cfg)
	t.Cleanup(func() { site.Close(); relay.Close() })
	g.hub.Add(relay, protocol.Hello{Version: 1, Profiles: []protocol.ProfileOffer{{Name: "files", Kind: protocol.KindFiles}}})
	if how == "ended" {
		must(t, relay.Close())
		return
	}
	_, err = relay.Open(t.Context())
	must(t, err)
}

// What never reached a tunnel, for that had ended or had all its streams, goes to another agent, is served once, and has one record.
func TestWhatNoTunnelTookGoesToAnother(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 2<<10)
	for _, how := range []string{"ended", "full"} {
		for name, op := range map[string]protocol.Operation{"read": protocol.OpRead, "write": protocol.OpWrite, "dial": protocol.OpDial} {
			t.Run(how+" "+name, func(t *testing.T) {
				var served atomic.Int64
				var got atomic.Pointer[[]byte]
				g := newRig(t, func(w http.ResponseWriter, r *http.Request) {
					served.Add(1)
					if op == protocol.OpDial {
						c, rw, err := http.NewResponseController(w).Hijack()
						if err != nil {
							return
						}
						defer c.Close()
						_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\necho ")
						_, _ = io.Copy(c, rw)
						return
					}
					b, _ := io.ReadAll(r.Body)
					got.Store(&b)
					answerOK(w, r)
				})
				unwilling(t, g, how)
				const n = 20 // who is asked first is by turns
				for range n {
					g.mu.Lock()
					g.events = nil
					g.mu.Unlock()
					c := g.call("default", "a", op)
					var err error
					if op == protocol.OpDial {
						err = g.Do(t.Context(), c, nil, func(s *dispatch.Raw) (in, out int64) {
							must(t, s.CloseWrite())
							b, err := io.ReadAll(s)
							if err != nil || string(b) != "echo " {
								t.Errorf("%q, %v", b, err)
							}
							return 0, 0
						})
					} else {
						if op == protocol.OpWrite {
							c.Body = io.MultiReader(bytes.NewReader(content))
						}
						err = g.Do(t.Context(), c, httptest.NewRecorder(), nil)
					}
					if err != nil {
						t.Fatal(err)
					}
					if op == protocol.OpWrite && !bytes.Equal(*got.Load(), content) {
						t.Fatalf("%d of %d bytes came", len(*got.Load()), len(content))
					}
					g.mu.Lock()
					var kinds []audit.Kind
					for _, e := range g.events {
						kinds = append(kinds, e.Kind)
						if e.Kind == audit.KindOutcome && e.Agent != "agt_default" {
							t.Errorf("recorded as done by %q", e.Agent)
						}
					}
					g.mu.Unlock()
					if !slices.Equal(kinds, []audit.Kind{audit.KindIntent, audit.KindOutcome}) {
						t.Fatalf("recorded: %v", kinds)
					}
				}
				if served.Load() != n {
					t.Errorf("%d were sent %d times", n, served.Load())
				}
			})
		}
	}
}
