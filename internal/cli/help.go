package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// ProgramName stands in examples of commands that several programs have, for the name of the one that runs.
const ProgramName = "{program}"

// printHelp is kong's help, then the examples of the command.
func printHelp(options kong.HelpOptions, ctx *kong.Context) error {
	if err := kong.DefaultHelpPrinter(options, ctx); err != nil {
		return err
	}
	node := ctx.Model.Node
	if s := ctx.Selected(); s != nil {
		node = s
	}
	lines := examples(node)
	if len(lines) == 0 {
		return nil
	}
	var b strings.Builder
	b.WriteString("\nExamples:\n")
	for _, line := range lines {
		fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(line, ProgramName, ctx.Model.Name))
	}
	_, err := ctx.Stdout.Write([]byte(b.String()))
	return err
}

func examples(node *kong.Node) []string {
	if !node.Target.IsValid() || !node.Target.CanAddr() {
		return nil
	}
	if e, ok := node.Target.Addr().Interface().(Exampler); ok {
		return e.Examples()
	}
	return nil
}
