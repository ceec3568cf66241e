package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestCleanStripsControlCharacters(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                  "plain",
		"grün 日本":                "grün 日本",
		"\x1b]0;title\x07":       `\x1b]0;title\x07`,
		"a\nb\tc\rd":             `a\nb\tc\rd`,
		"c1 \u009b31m":           `c1 \u009b31m`,
		"del\x7f":                `del\x7f`,
		"bad \xff\xc3(":          `bad \xff\xc3(`,
		"bidi \u202egpj.exe":     `bidi \u202egpj.exe`,
		"line\u2028separator":    `line\u2028separator`,
		"isolate \u2066x\u2069 ": `isolate \u2066x\u2069 `,
	} {
		t.Run(fmt.Sprintf("J11 %q", in), func(t *testing.T) {
			if got := Clean(in); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	if got := CleanLines("a\n\tb\x1b"); got != "a\n\tb\\x1b" {
		t.Errorf("CleanLines: %q", got)
	}
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "a\x1b[0m", "\xff", "\u009b", "日本\u202e", "\xe6\x97"} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, s string, cut int) {
		got := Clean(s)
		if !utf8.ValidString(got) {
			t.Fatalf("invalid UTF-8: %q", got)
		}
		for _, r := range got {
			if r < ' ' || r == 0x7f || hostile(r) {
				t.Fatalf("%q is left in %q", r, got)
			}
		}
		// A stream gives the same text wherever it is cut.
		if utf8.ValidString(s) {
			var b bytes.Buffer
			w := &cleanWriter{w: &b}
			cut = min(max(cut, 0), len(s))
			for _, part := range []string{s[:cut], s[cut:]} {
				if n, err := w.Write([]byte(part)); err != nil || n != len(part) {
					t.Fatal(n, err)
				}
			}
			if b.String() != CleanLines(s) {
				t.Fatalf("cut at %d: %q, want %q", cut, b.String(), CleanLines(s))
			}
		}
	})
}

func TestTableAlignsByDisplayWidth(t *testing.T) {
	var b bytes.Buffer
	w := NewTable(&b, []string{"name", "n"}, []bool{false, true})
	for _, row := range [][]string{{"日本", "1"}, {"e\u0301a", "22"}, {"x\ty", "3"}, {"short"}} {
		if err := w.Row(row...); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "name    n\n日本    1\ne\u0301a     22\nx\\ty    3\nshort\n"
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", b.String(), want)
	}
}

func TestTableStreams(t *testing.T) {
	var b bytes.Buffer
	w := NewTable(&b, []string{"n"}, nil)
	for i := range tableSample {
		if i == tableSample-1 && b.Len() != 0 {
			t.Error("printed before the widths are known")
		}
		if err := w.Row(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(b.String(), "\n"); n != tableSample+1 {
		t.Errorf("%d lines after the sample is full", n)
	}
	if err := w.Row("a cell that is wider than all before"); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil || !strings.HasSuffix(b.String(), "199\na cell that is wider than all before\n") {
		t.Errorf("%v %q", err, b.String()[b.Len()-60:])
	}
}

func TestEmptyTableHasItsHeader(t *testing.T) {
	var b bytes.Buffer
	if err := (&Term{Out: &b}).Table([]string{"name", "state"}, nil); err != nil || b.String() != "NAME  STATE\n" {
		t.Errorf("%v %q", err, b.String())
	}
}

func TestProgress(t *testing.T) {
	start := time.Now()
	p := &Progress{label: "get x", start: start, from: 1 << 20, done: 3 << 20, total: 5 << 20}
	if got, want := p.line(start.Add(2*time.Second)), "get x  [##############..........]  60%  3.0 MiB of 5.0 MiB  1.0 MiB/s  0:02 left"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	p.total = -1
	if got, want := p.line(start.Add(2*time.Second)), "get x  3.0 MiB  1.0 MiB/s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var b bytes.Buffer
	quiet := NewProgress(&Term{Err: &b}, "x", 0, 10)
	quiet.Add(10)
	quiet.Done()
	if b.Len() != 0 {
		t.Errorf("drawn without a terminal: %q", b.String())
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1048575: "1.0 MiB", 5 << 40: "5.0 TiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestComplete(t *testing.T) {
	for _, c := range []struct {
		words []string // the last one is under the cursor
		want  string
	}{
		{[]string{"bash", ""}, "list fail nested completion version"},
		{[]string{"bash", "li"}, "list"},
		{[]string{"bash", "nested", ""}, "deep other"},
		{[]string{"bash", "fail", "c"}, "canceled config"},
		{[]string{"bash", "list", "--f"}, "--fast --file"},
		{[]string{"bash", "list", "--output", ""}, "table json"},
		{[]string{"bash", "list", "-o", "j"}, "json"},
		{[]string{"bash", "list", "--output", "=", "j"}, "json"},
		{[]string{"bash", "list", "--output", "="}, "table json"},
		{[]string{"zsh", "list", "--output=j"}, "--output=json"},
		{[]string{"zsh", "list", "--file", ""}, ":files"},
		{[]string{"zsh", "--relay", "x", "nes"}, "nested"},
		{[]string{"zsh", "list", "--output=json", "--fa"}, "--fast"},
		{[]string{"zsh", "list", "--", "--fa"}, ""},
		{[]string{"zsh", "list", "--nothing=x"}, ""},
		{[]string{"powershell", "completion", "~z"}, "zsh"},
		{[]string{"fish", "completion", ""}, "bash zsh fish powershell"},
		{[]string{"fish"}, ""},
	} {
		var b bytes.Buffer
		status := Run(testProgram(), append([]string{completeCommand}, c.words...), nil, &b, &b)
		var got []string
		for line := range strings.Lines(b.String()) {
			word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			got = append(got, word)
		}
		if status != 0 || strings.Join(got, " ") != c.want {
			t.Errorf("%q: status %d, got %q, want %q", c.words, status, got, c.want)
		}
	}
}

// The script itself, in a real bash: this binary plays the program.
func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash on this machine")
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "demo")
	if err := os.Symlink(self, program); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	var script bytes.Buffer
	if status := Run(testProgram(), []string{"completion", "bash"}, nil, &script, &script); status != 0 {
		t.Fatal(script.String())
	}
	if err := os.WriteFile(filepath.Join(dir, "some file.txt"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		`demo ""`:              "list fail nested completion version",
		`demo nested d`:        "deep",
		`demo list --output =`: "table json",
		`demo list --file so`:  "some file.txt",
	} {
		test := script.String() + fmt.Sprintf("\nCOMP_WORDS=(%s)\nCOMP_WORDS[0]=%s\nCOMP_CWORD=$((${#COMP_WORDS[@]}-1))\n_demo_complete\n"+
			`printf '%%s|' "${COMPREPLY[@]}"`, line, program)
		cmd := exec.Command(bash, "--norc", "-c", test)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		if got := strings.Join(strings.Split(strings.TrimSuffix(string(out), "|"), "|"), " "); got != want {
			t.Errorf("%s: got %q, want %q", line, got, want)
		}
	}
}
