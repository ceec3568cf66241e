package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
)

func record(t testing.TB, r *Recorder, e Event) Record {
	t.Helper()
	tk, err := r.Record(e)
	must(t, err)
	must(t, tk.Wait(t.Context()))
	rs, err := r.Log.Read(tk.Seq()-1, 1)
	must(t, err)
	return rs[0]
}

func TestRecorderSetsWhoAndWhen(t *testing.T) {
	t.Run("K2 claimed time, id, tenant", func(t *testing.T) {
		r := &Recorder{Log: openTest(t, Config{Dir: t.TempDir()}), Source: "agt_1", Workspace: "ws_1"}
		var got Event
		must(t, json.Unmarshal(record(t, r, Event{
			ID: "evt_forged", Time: time.Unix(0, 0), Source: "agt_2", Workspace: "ws_2", Kind: KindIntent,
			Claimed: map[string]string{"principal": "usr_x"},
		}).Body, &got))
		if got.ID == "evt_forged" || len(got.ID) != 30 || time.Since(got.Time) > time.Minute || got.Source != "agt_1" || got.Workspace != "ws_1" ||
			got.Claimed["principal"] != "usr_x" || got.Principal != "" {
			t.Errorf("%+v", got)
		}
	})
}

func TestSealedRecords(t *testing.T) {
	flip := func(p []byte) []byte { // stands for a cipher
		out := bytes.Clone(p)
		for i := range out {
			out[i] ^= 0x55
		}
		return out
	}
	cfg := Config{Dir: t.TempDir(), Key: testKey}
	broken := false
	r := &Recorder{Log: openTest(t, cfg), Workspace: "ws_1", Seal: func(ws string, p []byte) ([]byte, error) {
		if broken {
			return nil, errors.New("kms is away")
		}
		return flip(append([]byte(ws+":"), p...)), nil
	}}
	rec := record(t, r, Event{Kind: KindIntent, Target: "CANARY"})
	if bytes.Contains(rec.Line, []byte("CANARY")) {
		t.Fatalf("%s", rec.Line)
	}
	var shape map[string]any
	must(t, json.Unmarshal(rec.Body, &shape))
	if len(shape) != 5 || shape["kind"] != "operation.intent" || shape["workspace"] != "ws_1" {
		t.Fatalf("%s", rec.Body)
	}
	open := func(ws string, sealed []byte) ([]byte, error) {
		plain, ok := bytes.CutPrefix(flip(sealed), []byte(ws+":"))
		if !ok {
			return nil, errors.New("of another workspace")
		}
		return plain, nil
	}
	plain, err := Unseal(rec.Body, open)
	if err != nil || !bytes.Contains(plain, []byte(`"target":"CANARY"`)) {
		t.Fatalf("%s %v", plain, err)
	}
	if clear, err := Unseal(plain, open); err != nil || !bytes.Equal(clear, plain) {
		t.Fatal("a body in the clear was changed")
	}
	if _, err := Unseal(bytes.Replace(rec.Body, []byte("ws_1"), []byte("ws_2"), 1), open); err == nil {
		t.Fatal("another workspace's event was opened")
	}
	// P6: what cannot be sealed is not recorded, and the act may not be done.
	broken = true
	if _, err := r.Record(Event{Kind: KindIntent}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	head := r.Log.Head()
	must(t, r.Log.Close())
	if rep := mustVerify(t, cfg.Dir, head); rep.Records != 1 {
		t.Fatalf("%+v", rep)
	}
}

func TestLogsKeepWorkspacesApart(t *testing.T) {
	dir := t.TempDir()
	s := &Logs{
		Config: Config{Dir: dir, Key: testKey, Source: "rel_1"},
		Masker: func(ws string) (*Masker, error) {
			if ws == "ws_locked" {
				return nil, errors.New("no key")
			}
			return &Masker{Key: secret.FromString(ws)}, nil
		},
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			ws := fmt.Sprintf("ws_%d", i%4)
			r, err := s.Recorder(ws)
			if err == nil {
				var tk *Ticket
				if tk, err = r.Record(Event{Kind: KindIntent, Workspace: "ws_other", PrincipalName: "Joe"}); err == nil {
					err = tk.Wait(t.Context())
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tokens := map[string]bool{}
	for i := range 4 {
		l, err := s.Get(fmt.Sprintf("ws_%d", i))
		must(t, err)
		rs, err := l.Read(0, 100)
		if err != nil || len(rs) != 10 {
			t.Fatalf("%d records: %v", len(rs), err)
		}
		var e Event
		must(t, json.Unmarshal(rs[0].Body, &e))
		if e.Workspace != fmt.Sprintf("ws_%d", i) {
			t.Errorf("an event of %q is in the log of ws_%d", e.Workspace, i)
		}
		tokens[e.PrincipalName] = true
	}
	if len(tokens) != 4 {
		t.Error("workspaces share tokens")
	}
	for _, bad := range []string{"", ".", "..", "../x", "a/b", `a\b`, "a b", "ä", "a\x00", "C:", strings.Repeat("a", 129)} {
		if _, err := s.Get(bad); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := s.Get("ws_locked"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "ws_file"), nil, 0o600))
	if _, err := s.Get("ws_file"); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	must(t, os.Remove(filepath.Join(dir, "ws_file")))
	if _, err := s.Get("ws_file"); err != nil {
		t.Errorf("a failed opening is not tried again: %v", err)
	}
	if names, err := s.Workspaces(); err != nil || len(names) != 5 {
		t.Errorf("%v %v", names, err)
	}
	must(t, s.Close())
	if _, err := s.Get("ws_1"); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	for i := range 4 {
		mustVerify(t, filepath.Join(dir, fmt.Sprintf("ws_%d", i)))
	}
}

func TestAppendRefuses(t *testing.T) {
	l := openTest(t, Config{Dir: t.TempDir()})
	for _, b := range []string{"", "{", "{}{}", "\xff", `"\xff"`, `{"a":` + strings.Repeat("1", MaxBodyBytes) + "}", "nul", `{"a":1}x`} {
		if _, err := l.Append([]byte(b)); !errors.Is(err, ErrBody) {
			t.Errorf("%.20q: %v", b, err)
		}
	}
	add(t, l, " { \n\t\"a\" : \"<\u2028>\" } ")
	rs, err := l.Read(0, 1)
	must(t, err)
	if string(rs[0].Body) != `{"a":"\u003c\u2028\u003e"}` {
		t.Errorf("%s", rs[0].Body)
	}
	add(t, l, `"`+strings.Repeat("x", MaxBodyBytes-2)+`"`)
	if rs, err = l.Read(1, 1); err != nil || len(rs) != 1 || len(rs[0].Body) != MaxBodyBytes {
		t.Errorf("%v", err)
	}
}

func TestOpenRefusesBadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	for _, c := range []Config{
		{}, {Dir: t.TempDir(), Source: "a\nb"}, {Dir: t.TempDir(), MaxBytes: 1}, {Dir: t.TempDir(), Key: testKey[:10]}, {Dir: filepath.Join(file, "x")},
	} {
		if l, err := Open(c); err == nil {
			_ = l.Close()
			t.Errorf("%+v: opened", c)
		}
	}
}
