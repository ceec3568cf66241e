package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/fairleadhq/fairlead/protocol"
)

// Program describes one command-line program.
type Program struct {
	Name        string // as typed
	Description string // one or two sentences, shown by --help
	// Grammar is a pointer to a kong struct. Its commands have Run methods that may take a context.Context, a *Term and
	// whatever is in Bind. A command (and the grammar itself) may have an Examples method: see Exampler.
	Grammar any
	Bind    []any             // further values for Run methods, found by their type
	Vars    map[string]string // for ${name} in help and defaults
	Groups  map[string]string // titles of flag groups
	Version string            // "" takes the build information
}

// Exampler is implemented by commands whose help shows examples. Each is a line to type; one that begins with "#" is a
// remark on the line after it. ProgramName in it becomes the program's name.
type Exampler interface{ Examples() []string }

// Run parses args (without the program's name), runs the command and gives the exit status. The commands version and
// completion are added to the grammar. The context given to the command is cancelled by SIGINT or SIGTERM; a second
// signal ends the process at once with status 130.
func Run(p Program, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return run(p, args, stdin, stdout, stderr, os.Exit)
}

func run(p Program, args []string, stdin io.Reader, stdout, stderr io.Writer, exit func(int)) int {
	t := &Term{In: stdin, Out: stdout, Err: stderr, Program: p.Name}
	helped := false
	k, err := p.parser(t, func(int) { helped = true })
	if err != nil {
		panic(fmt.Sprintf("grammar of %s: %v", p.Name, err)) // a programmer's error: the grammar is fixed at build time
	}
	if len(args) > 0 && args[0] == completeCommand {
		return complete(k.Model, args[1:], stdout)
	}
	if len(args) == 0 {
		k.Stdout = stderr
		_, _ = k.Parse([]string{"--help"}) // prints, then finds that there is no command
		return protocol.CodeInvalid.ExitCode()
	}
	asJSON := wantsJSON(args)
	kctx, err := k.Parse(args)
	if helped {
		return 0
	}
	if err != nil {
		return Fail(t, usageError(p.Name, err), asJSON)
	}
	ctx, stop := signalContext(exit)
	defer stop()
	kctx.BindTo(ctx, (*context.Context)(nil))
	if err := kctx.Run(); err != nil {
		return Fail(t, err, asJSON)
	}
	return 0
}

func (p Program) parser(t *Term, exit func(int)) (*kong.Kong, error) {
	version := p.Version
	if version == "" {
		version = Build(p.Name).Version
	}
	groups := kong.Groups{}
	for k, v := range p.Groups {
		groups[k] = v
	}
	options := []kong.Option{
		kong.Name(p.Name), kong.Description(p.Description), kong.Writers(t.Out, t.Err), kong.Exit(exit),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}), kong.Help(printHelp), kong.Vars(p.Vars), groups,
		kong.DynamicCommand("completion", "Print the completion script of a shell.", "", &completionCommand{name: p.Name}),
		kong.DynamicCommand("version", "Print version, revision and Go version.", "", &versionCommand{name: p.Name, version: version}),
		kong.Bind(t), kong.Bind(append([]any{}, p.Bind...)...),
	}
	return kong.New(p.Grammar, options...)
}

// usageError turns what the parser says into an error with status 64 and a hint. A file that a flag names and that is not
// there, or may not be looked at, keeps the status of its own.
func usageError(name string, err error) error {
	var perr *protocol.Error
	if errors.As(err, &perr) { // from a Validate method
		return err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) { // the line is right, the file it names is not there
		return err
	}
	path := name
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		for _, step := range parse.Context.Path {
			if step.Command != nil {
				path += " " + step.Command.Name
			}
		}
	}
	return &protocol.Error{Code: protocol.CodeInvalid, Message: err.Error(), Hint: fmt.Sprintf("run %q for flags and examples", path+" --help")}
}

// wantsJSON reports whether the arguments ask for JSON. It looks at the raw arguments, for an error of the parser is
// printed in that form too.
func wantsJSON(args []string) bool {
	json := false
	for i, a := range args {
		var v string
		switch {
		case a == "--":
			return json
		case (a == "--output" || a == "-o") && i+1 < len(args):
			v = args[i+1]
		case strings.HasPrefix(a, "--output="):
			v = strings.TrimPrefix(a, "--output=")
		case strings.HasPrefix(a, "-o") && len(a) > 2:
			v = strings.TrimPrefix(a[2:], "=")
		default:
			continue
		}
		json = v == "json" || v == "ndjson"
	}
	return json
}

// signalContext gives a context that ends at the first signal; the second one calls exit. stop gives the signals back
// and joins the goroutine.
func signalContext(exit func(int)) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			case <-signals:
				cancel()
				if n > 1 {
					exit(protocol.CodeCanceled.ExitCode())
				}
			}
		}
	})
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(done)
		wg.Wait()
		cancel()
	})
}
