package main

import (
	"bufio"
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/internal/mutant"
)

const usage = `usage: fairlead-mutants [flags] PACKAGE-DIRECTORY...

Changes each check in the packages, one at a time, and runs their tests. A change that no test notices is named, unless the file
of equivalents says why it makes no difference; then the command ends with 1.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "fairlead-mutants:", err)
		os.Exit(1)
	}
}

type job struct {
	mutant.Mutant
	src   []byte
	tests mutant.Tests
}

func run(ctx context.Context) error {
	flags := flag.NewFlagSet("fairlead-mutants", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprint(flags.Output(), usage); flags.PrintDefaults() }
	workers := flags.Int("workers", 2, "mutants that are tried at a time")
	limit := flags.Duration("limit", 2*time.Minute, "longest run of the tests")
	also := flags.String("also", "", "further packages whose tests are run, with commas between")
	tests := flags.String("run", "", "only these tests, as go test -run")
	only := flags.String("only", "", "only mutants whose key has this text in it")
	equivalents := flags.String("equivalents", "internal/mutant/equivalent.txt", "file of mutants that change nothing, with reasons")
	_ = flags.Parse(os.Args[1:])
	if flags.NArg() == 0 || *workers < 1 {
		flags.Usage()
		return fmt.Errorf("name the packages' directories, such as relay/authz")
	}
	known, err := readEquivalents(*equivalents)
	if err != nil {
		return err
	}
	jobs, err := find(flags.Args(), *only, mutant.Tests{Packages: splitList(*also), Run: *tests, Limit: *limit})
	if err != nil {
		return err
	}
	var (
		mu       sync.Mutex
		fates    = map[mutant.Fate]int{}
		survived []string
		failed   error
		done     int
		wg       sync.WaitGroup
	)
	queue := make(chan job)
	begun := time.Now()
	for range *workers {
		wg.Go(func() {
			dir, err := os.MkdirTemp("", "fairlead-mutants-")
			if err == nil {
				defer os.RemoveAll(dir)
			}
			for j := range queue {
				fate := mutant.Fate("equivalent")
				e := err
				if _, ok := known[j.Key()]; !ok && e == nil {
					fate, _, e = j.tests.Try(ctx, dir, j.Mutant, j.src)
				}
				mu.Lock()
				failed = cmp.Or(failed, e)
				fates[fate]++
				if done++; fate == mutant.Survived {
					survived = append(survived, j.Key())
					fmt.Printf("survived  %s:%d  %s\n  %s\n", j.File, j.Line, j.What, j.Key())
				}
				if done%25 == 0 {
					fmt.Fprintf(os.Stderr, "%d of %d in %s: %d survived\n", done, len(jobs), time.Since(begun).Round(time.Second), len(survived))
				}
				mu.Unlock()
			}
		})
	}
	for _, j := range jobs {
		select {
		case queue <- j:
		case <-ctx.Done():
		}
	}
	close(queue)
	wg.Wait()
	if err := cmp.Or(ctx.Err(), failed); err != nil {
		return err
	}
	fmt.Printf("%d mutants: %d killed, %d do not compile, %d equivalent, %d survived\n", len(jobs), fates[mutant.Killed], fates[mutant.Stillborn], fates["equivalent"], fates[mutant.Survived])
	if stale := unknown(known, jobs, flags.Args(), *only); len(stale) > 0 {
		return fmt.Errorf("%s names mutants that there are not; take them out:\n  %s", *equivalents, strings.Join(stale, "\n  "))
	}
	if len(survived) > 0 {
		return fmt.Errorf("%d changes were noticed by no test", len(survived))
	}
	return nil
}

func splitList(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(s string) bool { return s == "" })
}

// find gives the mutants of all files of the packages but their tests.
func find(dirs []string, only string, tests mutant.Tests) (jobs []job, err error) {
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			return nil, fmt.Errorf("no Go files in %s", dir)
		}
		own := tests
		own.Packages = append([]string{"./" + filepath.ToSlash(filepath.Clean(dir))}, tests.Packages...)
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			found, err := mutant.Find(filepath.ToSlash(file), src)
			if err != nil {
				return nil, err
			}
			for _, m := range found {
				if strings.Contains(m.Key(), only) {
					jobs = append(jobs, job{m, src, own})
				}
			}
		}
	}
	return jobs, nil
}

// readEquivalents reads keys of mutants, each followed by a line that says, after four blanks, why it makes no difference.
func readEquivalents(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	known, key := map[string]string{}, ""
	in := bufio.NewScanner(f)
	for n := 1; in.Scan(); n++ {
		switch line := in.Text(); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "    ") && key != "":
			known[key] = strings.TrimSpace(line)
			key = ""
		case key == "" && strings.Count(line, " | ") >= 4:
			key = line
		default:
			return nil, fmt.Errorf("%s:%d: want the key of a mutant, and on the line below it, after four blanks, why it makes no difference", file, n)
		}
	}
	if key != "" {
		return nil, fmt.Errorf("%s: the last mutant has no reason", file)
	}
	return known, in.Err()
}

// unknown are equivalents of the files that were looked at which are no mutants any more.
func unknown(known map[string]string, jobs []job, dirs []string, only string) (stale []string) {
	there := map[string]bool{}
	for _, j := range jobs {
		there[j.Key()] = true
	}
	for k := range known {
		file, _, _ := strings.Cut(k, " | ")
		if only == "" && !there[k] && slices.Contains(dirs, filepath.ToSlash(filepath.Dir(file))) {
			stale = append(stale, k)
		}
	}
	slices.Sort(stale)
	return stale
}
