package folder

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
)

// FuzzOperations asks for arbitrary paths, globs and cursors. Nothing may come from outside the base, be made there, or
// end as an internal error.
func FuzzOperations(f *testing.F) {
	for _, p := range []string{"", "a/b", "../outside/canary", "link/canary", "a/../..", "%2e%2e/x", "\xff", "x\x00", ".fairlead-x", "a//b", "NUL.txt", "pipe"} {
		f.Add(p, "to", "*.csv", "MWEvYg", 3, true)
	}
	f.Add("a", "b", "**/[a-", "MQ", 0, false)
	top := f.TempDir()
	base, outside := filepath.Join(top, "base"), filepath.Join(top, "outside")
	for _, d := range []string{filepath.Join(base, "a"), outside} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			f.Fatal(err)
		}
	}
	for _, p := range []string{filepath.Join(base, "a", "b"), filepath.Join(outside, "canary")} {
		if err := os.WriteFile(p, []byte("canary"), 0o644); err != nil {
			f.Fatal(err)
		}
	}
	_ = os.Symlink(outside, filepath.Join(base, "link"))
	s, err := New(Config{Name: "hr", Base: base, ReserveBytes: -1, ReservePercent: -1, MaxSize: 1000}, slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	s.sync = func(*os.File) error { return nil }
	ops := []protocol.Operation{protocol.OpList, protocol.OpStat, protocol.OpRead, protocol.OpWrite, protocol.OpDelete, protocol.OpMove, protocol.OpMkdir}
	f.Fuzz(func(t *testing.T, path, to, glob, cursor string, n int, flag bool) {
		for _, op := range ops {
			r := &protocol.Request{Operation: op, Path: path, Header: http.Header{"If-Match": {to}, "Range": {glob}}}
			switch op {
			case protocol.OpList:
				r.Glob, r.Cursor, r.Recursive, r.PageSize = glob, cursor, flag, n
			case protocol.OpMove:
				r.To, r.Overwrite = to, flag
			}
			c := call(r, strings.NewReader("x"))
			w := httptest.NewRecorder()
			_, err := s.Do(t.Context(), c, w)
			if err != nil {
				if e := protocol.AsError(err); e.Code == protocol.CodeInternal || e.Code == protocol.CodeUpstream {
					t.Fatalf("%s of %q, %q: %v: %v", op, path, to, err, e.Cause)
				}
			}
			if op == protocol.OpList && strings.Contains(w.Body.String(), "canary") {
				t.Fatalf("list of %q shows what is outside", path)
			}
		}
		all, err := os.ReadDir(outside)
		if err != nil || len(all) != 1 {
			t.Fatalf("outside: %v %v", all, err)
		}
		_ = os.MkdirAll(filepath.Join(base, "a"), 0o755)
	})
}
