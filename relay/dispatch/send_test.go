package dispatch_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

// refuses answers as an agent that did nothing, after it has read some of the body.
func refuses(w http.ResponseWriter, r *http.Request, read int64, begun bool) {
	_, _ = io.CopyN(io.Discard, r.Body, read)
	w.Header().Set(protocol.HeaderOrigin, string(protocol.OriginAgent))
	if !begun {
		w.Header().Set(protocol.HeaderNotBegun, "1")
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_ = json.NewEncoder(w).Encode(protocol.Errorf(protocol.CodeUnavailable, "the agent is stopping"))
}

// pair is a rig whose default workspace has a second agent; the first refuses, and which is asked first is by turns.
func pair(t *testing.T, first http.HandlerFunc) (g *rig, asked, served *atomic.Int64, got func() []byte) {
	t.Helper()
	asked, served = new(atomic.Int64), new(atomic.Int64)
	g = newRig(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); first(w, r) })
	var mu sync.Mutex // guards body
	var body []byte
	ws, err := g.dir.Snapshot().Workspace("default")
	must(t, err)
	g.agent("agt_second", ws, func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		body = b
		mu.Unlock()
		if r.Header.Get("Upgrade") == "" {
			answerOK(w, r)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+protocol.UpgradeDial+"\r\n\r\necho ")
		_, _ = io.Copy(c, rw)
	})
	return g, asked, served, func() []byte { mu.Lock(); defer mu.Unlock(); return body }
}

// What an agent refused before it did anything goes to another one: reads, writes with the whole body, dials.
func TestWhatAnAgentDidNotBeginGoesToAnother(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 2<<10) // 32 KiB
	for name, body := range map[string]func() io.Reader{
		"without a body":   func() io.Reader { return nil },
		"a body in memory": func() io.Reader { return bytes.NewReader(content) },
		"a body that streams in": func() io.Reader {
			return io.MultiReader(bytes.NewReader(content[:100]), bytes.NewReader(content[100:]))
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, asked, served, got := pair(t, func(w http.ResponseWriter, r *http.Request) { refuses(w, r, 1000, false) })
			const n = 20
			for range n {
				c := g.call("default", "a", protocol.OpRead)
				if c.Body = body(); c.Body != nil {
					c.Request.Operation = protocol.OpWrite
				}
				w := httptest.NewRecorder()
				if err := g.Do(t.Context(), c, w, nil); err != nil || w.Body.String() != "ok" {
					t.Fatalf("%v %q", err, w.Body)
				}
				if c.Body != nil && !bytes.Equal(got(), content) {
					t.Fatalf("%d of %d bytes came", len(got()), len(content))
				}
			}
			if asked.Load() == 0 || served.Load() != n {
				t.Errorf("asked %d, served %d", asked.Load(), served.Load())
			}
		})
	}
	for name, text := range map[string]string{"dial": "", "dial with bytes that are on their way": string(content)} {
		t.Run(name, func(t *testing.T) {
			g, asked, served, _ := pair(t, func(w http.ResponseWriter, r *http.Request) { refuses(w, r, 0, false) })
			for range 20 {
				var got []byte
				must(t, g.Do(t.Context(), g.call("default", "a", protocol.OpDial), nil, func(s *dispatch.Raw) (in, out int64) {
					if _, err := io.WriteString(s, text); err != nil {
						t.Error(err)
					}
					must(t, s.CloseWrite())
					var err error
					if got, err = io.ReadAll(s); err != nil {
						t.Error(err)
					}
					return 0, 0
				}))
				if string(got) != "echo "+text {
					t.Fatalf("%d of %d bytes", len(got), len(text)+5)
				}
			}
			if asked.Load() == 0 || served.Load() != 20 {
				t.Errorf("asked %d, served %d", asked.Load(), served.Load())
			}
		})
	}
	t.Run("not a dial whose bytes are no longer kept", func(t *testing.T) {
		g, asked, served, _ := pair(t, func(w http.ResponseWriter, r *http.Request) { refuses(w, r, 0, false) })
		refused := 0
		for range 10 {
			err := g.Do(t.Context(), g.call("default", "a", protocol.OpDial), nil, func(s *dispatch.Raw) (in, out int64) {
				for range 9 { // past what is kept; the first agent's window takes it
					if _, err := s.Write(content[:8<<10]); err != nil {
						break
					}
				}
				_ = s.Admitted()
				return 0, 0
			})
			if err != nil {
				if e := protocol.AsError(err); e.Code != protocol.CodeUnavailable || e.Origin != protocol.OriginAgent {
					t.Errorf("%+v", e)
				}
				refused++
			}
		}
		if refused == 0 || int64(refused) != asked.Load() || served.Load() != 10-int64(refused) {
			t.Errorf("%d refused, %d asked, %d served", refused, asked.Load(), served.Load())
		}
	})
}

// What may have acted is never sent again: a refusal without the word, a cut answer, a tunnel that was lost.
func TestWhatMayHaveActedIsNeverSentAgain(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"another refusal":    func(w http.ResponseWriter, r *http.Request) { refuses(w, r, 0, true) },
		"the stream is lost": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a target that says so": func(w http.ResponseWriter, _ *http.Request) { // the agent's own word wants its origin
			w.Header().Set(protocol.HeaderNotBegun, "1")
			w.WriteHeader(http.StatusServiceUnavailable)
		},
	} {
		t.Run(name, func(t *testing.T) {
			g, asked, served, _ := pair(t, first)
			for range 20 {
				_ = g.Do(t.Context(), g.call("default", "a", protocol.OpRead), httptest.NewRecorder(), nil)
			}
			if asked.Load()+served.Load() != 20 || asked.Load() == 0 {
				t.Errorf("20 requests were sent %d times", asked.Load()+served.Load())
			}
		})
	}
}

// A body that is not kept any more is not sent in part: the caller hears that nothing was done.
func TestALongBodyIsNotSentInPart(t *testing.T) {
	g, asked, served, got := pair(t, func(w http.ResponseWriter, r *http.Request) { refuses(w, r, 1<<20, false) })
	content := strings.Repeat("x", 2<<20)
	refused := 0
	for range 10 {
		c := g.call("default", "a", protocol.OpWrite)
		c.Body = io.MultiReader(strings.NewReader(content))
		before := served.Load()
		if err := g.Do(t.Context(), c, httptest.NewRecorder(), nil); err != nil {
			if refused++; served.Load() != before {
				t.Fatal("a second agent was asked")
			}
		} else if len(got()) != len(content) {
			t.Fatalf("%d bytes came", len(got()))
		}
	}
	if refused == 0 || int64(refused) != asked.Load() {
		t.Errorf("%d refused, %d asked", refused, asked.Load())
	}
}

// When no other agent has the profile, the refusal is the answer.
func TestTheRefusalIsTheAnswerWhenNobodyElseIsThere(t *testing.T) {
	g := newRig(t, func(w http.ResponseWriter, r *http.Request) { refuses(w, r, 0, false) })
	if e := g.read("default", "a"); e == nil || e.Message != "the agent is stopping" || e.Origin != protocol.OriginAgent {
		t.Errorf("%+v", e)
	}
}
