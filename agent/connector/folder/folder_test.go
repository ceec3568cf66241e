package folder

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/agent/connector"
	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// site is a folder under test: base with the profile, and outside beside it.
type site struct {
	*Folder
	t       *testing.T
	base    string
	outside string
	globs   *policy.Globs
}

// globs compiles match patterns by way of a policy, as the agent does.
func globs(t *testing.T, patterns ...string) *policy.Globs {
	t.Helper()
	p, faults := policy.New(policy.Config{Files: map[string]policy.Files{"hr": {Allow: []string{"list"}, Match: patterns}}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return p.Decide(policy.Operation{Request: &protocol.Request{Kind: protocol.KindFiles, Profile: "hr", Operation: protocol.OpList}}).Match
}

func newSite(t *testing.T, change func(*Config)) *site {
	t.Helper()
	top := t.TempDir()
	s := &site{t: t, base: filepath.Join(top, "base"), outside: filepath.Join(top, "outside")}
	for _, d := range []string{s.base, s.outside} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{Name: "hr", Base: s.base, ReserveBytes: -1, ReservePercent: -1}
	if change != nil {
		change(&cfg)
	}
	f, err := New(cfg, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	s.Folder = f
	return s
}

func (s *site) put(path, content string) {
	s.t.Helper()
	full := filepath.Join(s.base, filepath.FromSlash(path))
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) get(path string) string {
	b, err := os.ReadFile(filepath.Join(s.base, filepath.FromSlash(path)))
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

// leftovers counts temporary files anywhere below the base.
func (s *site) leftovers() (n int) {
	_ = filepath.WalkDir(s.base, func(_ string, d os.DirEntry, _ error) error {
		if d != nil && reserved(d.Name()) {
			n++
		}
		return nil
	})
	return n
}

type result struct {
	*httptest.ResponseRecorder
	out protocol.Outcome
	err error
}

func (r result) code() protocol.Code {
	if r.err == nil {
		return ""
	}
	return protocol.AsError(r.err).Code
}

func (s *site) do(r *protocol.Request, body io.Reader) result {
	return s.doCtx(context.Background(), r, policy.Limits{}, body)
}

func (s *site) doCtx(ctx context.Context, r *protocol.Request, l policy.Limits, body io.Reader) result {
	r.Kind, r.Profile = protocol.KindFiles, "hr"
	if r.Header == nil {
		r.Header = http.Header{}
	}
	w := httptest.NewRecorder()
	out, err := s.Do(ctx, &connector.Call{Request: r, Decision: policy.Decision{Allow: true, Limits: l, Match: s.globs}, Body: body}, w)
	return result{w, out, err}
}

// call is a bare allowed call.
func call(r *protocol.Request, body io.Reader) *connector.Call {
	r.Kind, r.Profile, r.Header = protocol.KindFiles, "hr", http.Header{}
	return &connector.Call{Request: r, Decision: policy.Decision{Allow: true}, Body: body}
}

// discard takes an answer and keeps nothing of it.
type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) WriteHeader(int)             {}
func (d discard) Write(p []byte) (int, error) { return len(p), nil }

func (s *site) read(path string, h ...string) result {
	return s.do(&protocol.Request{Operation: protocol.OpRead, Path: path, Header: header(h...)}, nil)
}

func (s *site) write(path, content string, h ...string) result {
	return s.do(&protocol.Request{Operation: protocol.OpWrite, Path: path, Header: header(h...)}, strings.NewReader(content))
}

func (s *site) op(op protocol.Operation, path string) result {
	return s.do(&protocol.Request{Operation: op, Path: path}, nil)
}

func header(kv ...string) http.Header {
	h := http.Header{}
	for i := 0; i+1 < len(kv); i += 2 {
		h.Add(kv[i], kv[i+1])
	}
	return h
}

// all lists every page.
func (s *site) all(r protocol.Request) (paths []string, pages int) {
	s.t.Helper()
	r.Operation = protocol.OpList
	for {
		res := s.do(&r, nil)
		if res.err != nil {
			s.t.Fatalf("list %q: %v", r.Path, res.err)
		}
		var l protocol.FileList
		if err := json.Unmarshal(res.Body.Bytes(), &l); err != nil {
			s.t.Fatal(err)
		}
		for _, f := range l.Files {
			paths = append(paths, f.Path)
		}
		pages++
		if l.Cursor == "" {
			return paths, pages
		}
		r.Cursor = l.Cursor
	}
}

func (s *site) info(res result) (i protocol.FileInfo) {
	s.t.Helper()
	if res.err != nil {
		s.t.Fatal(res.err)
	}
	if err := json.Unmarshal(res.Body.Bytes(), &i); err != nil {
		s.t.Fatal(err)
	}
	return i
}

func (s *site) want(what string, res result, code protocol.Code) {
	s.t.Helper()
	if res.code() != code {
		s.t.Errorf("%s: got code %q (%v), want %q", what, res.code(), res.err, code)
	}
}

func TestReadsRangesAndConditions(t *testing.T) {
	s := newSite(t, nil)
	s.put("a/b.txt", "0123456789")
	whole := s.read("a/b.txt")
	if whole.err != nil || whole.Body.String() != "0123456789" || whole.Code != 200 || whole.out.Bytes != 10 {
		t.Fatalf("got %d %q %+v %v", whole.Code, whole.Body, whole.out, whole.err)
	}
	if ct := whole.Header().Get("Content-Type"); ct != "application/octet-stream" {
		t.Errorf("content type %q is a guess", ct)
	}
	tag := whole.Header().Get("ETag")
	for _, c := range []struct {
		name   string
		header []string
		status int
		body   string
		code   protocol.Code
	}{
		{"first bytes", []string{"Range", "bytes=0-3"}, 206, "0123", ""},
		{"last bytes", []string{"Range", "bytes=-2"}, 206, "89", ""},
		{"from", []string{"Range", "bytes=7-"}, 206, "789", ""},
		{"past the end is clipped", []string{"Range", "bytes=8-100"}, 206, "89", ""},
		{"outside", []string{"Range", "bytes=10-"}, 0, "", protocol.CodeRange},
		{"malformed", []string{"Range", "bytes=3-1"}, 0, "", protocol.CodeRange},
		{"if-range same", []string{"Range", "bytes=0-0", "If-Range", tag}, 206, "0", ""},
		{"if-range other", []string{"Range", "bytes=0-0", "If-Range", `"other"`}, 200, "0123456789", ""},
		{"not modified", []string{"If-None-Match", tag}, 304, "", ""},
		{"modified", []string{"If-None-Match", `"other"`}, 200, "0123456789", ""},
		{"match", []string{"If-Match", tag}, 200, "0123456789", ""},
		{"no match", []string{"If-Match", `"other"`}, 0, "", protocol.CodePrecondition},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := s.read("a/b.txt", c.header...)
			if r.code() != c.code || c.code == "" && (r.Code != c.status || r.Body.String() != c.body) {
				t.Fatalf("got %d %q %v", r.Code, r.Body, r.err)
			}
			if c.code != "" && r.Body.Len() != 0 {
				t.Fatalf("wrote %q before an error", r.Body)
			}
		})
	}
	s.want("absent", s.read("a/none"), protocol.CodeNotFound)
	s.want("folder", s.read("a"), protocol.CodeInvalid)
	s.want("file as folder", s.read("a/b.txt/c"), protocol.CodeNotFound)
	if e := s.read("a/b.txt", "Range", "bytes=10-").err.(*protocol.Error); e.Detail != "bytes */10" {
		t.Errorf("range error says %q", e.Detail)
	}
	s.want("answer cap", s.doCtx(t.Context(), &protocol.Request{Operation: protocol.OpRead, Path: "a/b.txt"}, policy.Limits{MaxBytes: 9}, nil), protocol.CodeTooLarge)
	s.want("size cap", s.doCtx(t.Context(), &protocol.Request{Operation: protocol.OpRead, Path: "a/b.txt"}, policy.Limits{MaxSize: 9}, nil), protocol.CodeTooLarge)
}

func TestStat(t *testing.T) {
	s := newSite(t, nil)
	s.put("d/f", "abc")
	i := s.info(s.op(protocol.OpStat, "d/f"))
	if i.Path != "d/f" || i.Size != 3 || i.Folder || i.ETag != s.read("d/f").Header().Get("ETag") || i.Uploaded != nil {
		t.Fatalf("got %+v", i)
	}
	if i = s.info(s.op(protocol.OpStat, "d")); !i.Folder || i.ETag != "" {
		t.Fatalf("got %+v", i)
	}
	if i = s.info(s.op(protocol.OpStat, "")); !i.Folder {
		t.Fatalf("got %+v", i)
	}
	s.want("absent", s.op(protocol.OpStat, "d/g"), protocol.CodeNotFound)
}

func TestListPagesAreCompleteAndStable(t *testing.T) {
	s := newSite(t, nil)
	var want []string
	for i := range 60 {
		dir := "d" + strconv.Itoa(i%7)
		name := dir + "/f" + strconv.Itoa(i)
		s.put(name, "")
		want = append(want, name)
		if !slices.Contains(want, dir) {
			want = append(want, dir)
		}
		s.put("top"+strconv.Itoa(i), "")
		want = append(want, "top"+strconv.Itoa(i))
	}
	slices.Sort(want)
	for _, size := range []int{1, 2, 3, 7, 50, 1000} {
		for _, fresh := range []bool{false, true} { // fresh: each page comes from another agent
			got, r := []string{}, protocol.Request{Operation: protocol.OpList, Recursive: true, PageSize: size}
			for {
				res := s.do(&r, nil)
				var l protocol.FileList
				if res.err != nil || json.Unmarshal(res.Body.Bytes(), &l) != nil || len(l.Files) > size {
					t.Fatal(res.err, len(l.Files))
				}
				for _, f := range l.Files {
					got = append(got, f.Path)
				}
				if r.Cursor = l.Cursor; r.Cursor == "" {
					break
				}
				if fresh {
					s.mu.Lock()
					s.cache = nil
					s.mu.Unlock()
				}
			}
			if sorted := slices.Sorted(slices.Values(got)); !slices.Equal(sorted, want) {
				t.Fatalf("page size %d: got %d entries, want %d: %q", size, len(got), len(want), got)
			}
		}
	}
	flat, _ := s.all(protocol.Request{Path: "d3", PageSize: 4})
	if len(flat) != 9 || flat[0] != "d3/f10" {
		t.Fatalf("got %q", flat)
	}
	s.want("bad cursor", s.do(&protocol.Request{Operation: protocol.OpList, Cursor: "!"}, nil), protocol.CodeInvalid)
	s.want("bad glob", s.do(&protocol.Request{Operation: protocol.OpList, Glob: "["}, nil), protocol.CodeInvalid)
	s.want("list of a file", s.op(protocol.OpList, "top1"), protocol.CodeNotFound)
}

func TestListWithGlobs(t *testing.T) {
	s := newSite(t, nil)
	s.globs = globs(t, "*.csv", "d/**/*.csv", "g/**/*.csv", "d", "g", "d/e")
	for _, p := range []string{"a.csv", "a.txt", "d/b.csv", "d/e/c.csv", "d/e/key", "secret/s.csv"} {
		s.put(p, "x")
	}
	for _, c := range []struct {
		r    protocol.Request
		want string
	}{
		{protocol.Request{}, "a.csv d"},
		{protocol.Request{Recursive: true}, "a.csv d d/b.csv d/e d/e/c.csv"},
		{protocol.Request{Recursive: true, Glob: "*.csv"}, "a.csv d/b.csv d/e/c.csv"},
		{protocol.Request{Recursive: true, Glob: "**/c.*"}, "d/e/c.csv"},
		{protocol.Request{Recursive: true, Glob: "d/*.csv"}, "d/b.csv"},
		{protocol.Request{Recursive: true, Glob: "d/**/*.csv"}, "d/b.csv d/e/c.csv"},
		{protocol.Request{Recursive: true, Path: "d", Glob: "e/*"}, "d/e/c.csv"},
	} {
		if got, _ := s.all(c.r); strings.Join(got, " ") != c.want {
			t.Errorf("%+v: got %q, want %q", c.r, got, c.want)
		}
	}
	s.want("listing a hidden folder", s.op(protocol.OpList, "secret"), protocol.CodeDenied)
	s.want("reading a hidden file", s.read("a.txt"), protocol.CodeDenied)
	s.want("absent hidden file", s.op(protocol.OpStat, "b.txt"), protocol.CodeDenied)
	s.want("deleting a hidden file", s.op(protocol.OpDelete, "a.txt"), protocol.CodeDenied)
	s.want("moving to a hidden name", s.do(&protocol.Request{Operation: protocol.OpMove, Path: "a.csv", To: "a.key"}, nil), protocol.CodeDenied)
	s.want("moving a folder with hidden files", s.do(&protocol.Request{Operation: protocol.OpMove, Path: "d", To: "g"}, nil), protocol.CodeDenied)
	if err := os.Remove(filepath.Join(s.base, "d/e/key")); err != nil {
		t.Fatal(err)
	}
	if r := s.do(&protocol.Request{Operation: protocol.OpMove, Path: "d", To: "g"}, nil); r.err != nil {
		t.Fatal(r.err)
	}
}

func TestBaseThatComesLate(t *testing.T) {
	base := filepath.Join(t.TempDir(), "mount")
	f, err := New(Config{Name: "hr", Base: base}, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := &site{Folder: f, t: t, base: base}
	s.want("before", s.op(protocol.OpList, ""), protocol.CodeUnavailable)
	if err := os.Mkdir(base, 0o755); err != nil {
		t.Fatal(err)
	}
	s.want("after", s.op(protocol.OpList, ""), "")
	f.Close()
	if r := s.op(protocol.OpList, ""); r.err == nil {
		t.Fatal("a closed folder still answers")
	}
}

func TestConfigIsChecked(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]Config{"relative": {Base: "x"}, "file": {Base: file}, "hardlinks": {Base: t.TempDir(), Hardlinks: "maybe"}} {
		if f, err := New(c, quiet); err == nil {
			f.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestReadOnlyRefusesEveryChange(t *testing.T) {
	s := newSite(t, func(c *Config) { c.ReadOnly = true })
	s.put("f", "x")
	for _, op := range []protocol.Operation{protocol.OpWrite, protocol.OpDelete, protocol.OpMkdir, protocol.OpMove} {
		s.want(string(op), s.do(&protocol.Request{Operation: op, Path: "f", To: "g"}, bytes.NewReader(nil)), protocol.CodeDenied)
	}
	s.want("read", s.read("f"), "")
}

func TestCloseEndsARunningUpload(t *testing.T) {
	s := newSite(t, nil)
	pr, pw := io.Pipe()
	done := make(chan result, 1)
	go func() { done <- s.do(&protocol.Request{Operation: protocol.OpWrite, Path: "f"}, pr) }()
	if _, err := io.WriteString(pw, "x"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	go pw.Write([]byte("y"))
	if r := <-done; r.err == nil {
		t.Fatal("the upload went through a closed folder")
	}
	pr.Close()
	if s.leftovers() != 0 || s.get("f") == "xy" {
		t.Fatal("something is left")
	}
}

// The two reasons why a name cannot be taken or given up are told apart.
func TestConflictsAreToldApart(t *testing.T) {
	s := newSite(t, nil)
	s.want("mkdir", s.op(protocol.OpMkdir, "full/inner"), "")
	for what, c := range map[string]struct {
		res  result
		want string
	}{
		"delete a folder with something in it": {s.op(protocol.OpDelete, "full"), "the folder is not empty"},
		"write onto a folder":                  {s.write("full", "x"), "exists"},
	} {
		if c.res.code() != protocol.CodeConflict || !strings.Contains(c.res.err.Error(), c.want) || strings.Contains(c.res.err.Error(), "exists, or") {
			t.Errorf("%s: %v", what, c.res.err)
		}
	}
}
