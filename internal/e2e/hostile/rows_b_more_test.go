//go:build linux

package hostile_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
)

// swap exchanges a folder and a link to the outside as fast as it can while every operation runs through it.
func (f *folders) swap(t *testing.T) {
	inside, link, away := filepath.Join(f.in, "door"), filepath.Join(f.in, ".link"), filepath.Join(f.in, ".away")
	if err := os.MkdirAll(inside, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inside, "canary.txt"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	swaps := 0
	wg.Go(func() {
		for ctx.Err() == nil {
			_ = os.Symlink("../out", link)
			_ = os.Rename(inside, away)
			_ = os.Rename(link, inside)
			_ = os.Remove(inside)
			_ = os.Rename(away, inside)
			swaps++
		}
	})
	for i := range 60 {
		if a := f.ask(t, file(protocol.OpRead, "in", "door/canary.txt"), ""); strings.Contains(a.body, canary) {
			t.Errorf("read outside: %s", a.body)
		}
		list := file(protocol.OpList, "in", "door")
		list.Recursive = true
		if a := f.ask(t, list, ""); strings.Contains(a.body, "dir/x") {
			t.Errorf("listed outside: %s", a.body)
		}
		_ = f.ask(t, file(protocol.OpWrite, "in", fmt.Sprintf("door/w%d", i)), "pwned")
		_ = f.ask(t, file(protocol.OpMkdir, "in", fmt.Sprintf("door/m%d", i)), "")
		_ = f.ask(t, file(protocol.OpDelete, "in", "door/dir/x"), "")
		mv := file(protocol.OpMove, "in", "door/canary.txt")
		mv.To = fmt.Sprintf("door/c%d", i)
		_ = f.ask(t, mv, "")
		mv.Path, mv.To = mv.To, mv.Path
		_ = f.ask(t, mv, "")
	}
	cancel()
	wg.Wait()
	os.RemoveAll(inside)
	os.RemoveAll(away)
	os.Remove(link)
	if swaps < 1000 {
		t.Errorf("only %d swaps", swaps)
	}
}

// listings lists folders with names that are no text, links outside and very many entries.
func (f *folders) listings(t *testing.T) {
	dir := filepath.Join(f.in, "many")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for i := range 20_000 {
		if err := os.Symlink("../../out/canary.txt", filepath.Join(dir, fmt.Sprintf("l%05d", i))); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"new\nline", "\x1b[2Jansi", "\xff\xfe", `quo"te`, "a\u202eb"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r := file(protocol.OpList, "in", "many")
	r.PageSize = 1_000_000
	seen, pages := 0, 0
	for {
		a := f.ask(t, r, "")
		f.went(t, a)
		var page protocol.FileList
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatalf("%v: %.200s", err, a.body)
		}
		if strings.ContainsAny(a.body, "\x1b") || strings.Contains(a.body, fmt.Sprintf(`"size":%d`, len(canary))) {
			t.Error("a listing holds raw control characters, or facts of files outside")
		}
		seen, pages = seen+len(page.Files), pages+1
		if page.Cursor == "" || pages > 1000 {
			break
		}
		r.Cursor = page.Cursor
	}
	if pages > 1000 {
		t.Error("the listing does not end")
	}
	for _, cursor := range []string{"../../../etc", "x", strings.Repeat("A", 16000), "\x00"} {
		r.Cursor = cursor
		if a := f.ask(t, r, ""); strings.Contains(a.body, "passwd") {
			t.Errorf("%.100q: %.300s", cursor, a.body)
		}
	}
	r = file(protocol.OpList, "in", "many")
	r.Glob = strings.Repeat("*a", 2000) + "b" // backtracks in a naive matcher
	_ = f.ask(t, r, "")
	r.Glob = "../*"
	if a := f.ask(t, r, ""); strings.Contains(a.body, "canary.txt") {
		t.Errorf("a glob leads outside: %.300s", a.body)
	}
	h := file(protocol.OpRead, "in", "a.csv")
	h.Header = http.Header{"Range": {"bytes=" + strings.Repeat("0-1,", 5000) + "0-1"}}
	if a := f.ask(t, h, ""); len(a.body) > 10_000 {
		t.Errorf("a range of many parts gave %d bytes of a file of 6", len(a.body))
	}
}
