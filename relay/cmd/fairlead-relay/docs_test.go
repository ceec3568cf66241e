package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// docs/relay-operation.md shows every command with all its long options, in the block below "Commands on the relay's machine", and none
// that is not there.
func TestCommandsAndOptionsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../../docs/relay-operation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), "\n## Commands on the relay's machine\n")
	_, text, _ = strings.Cut(text, "```\n")
	block, _, found := strings.Cut(text, "```\n")
	if !found {
		t.Fatal("the block of commands is not found")
	}
	k, err := kong.New(&grammar{})
	if err != nil {
		t.Fatal(err)
	}
	option := regexp.MustCompile(`--([a-z][a-z-]*)`)
	lines := 0
	for _, leaf := range k.Model.Leaves(true) {
		command := leaf.Name
		for n := leaf.Parent; n.Type == kong.CommandNode; n = n.Parent {
			command = n.Name + " " + command
		}
		command = "fairlead-relay " + command
		shown := map[string]bool{}
		stands := false
		for line := range strings.Lines(block) {
			if line != command+"\n" && !strings.HasPrefix(line, command+" ") {
				continue
			}
			stands = true
			lines++
			line, _, _ = strings.Cut(line, " #")
			for _, m := range option.FindAllStringSubmatch(strings.ReplaceAll(line, "WHERE", "--data --config"), -1) {
				shown[m[1]] = true
			}
		}
		if !stands {
			t.Errorf("it does not show: %s", command)
			continue
		}
		for _, f := range leaf.Flags {
			if f.Hidden || f.Name == "help" {
				continue
			}
			if !shown[f.Name] {
				t.Errorf("%s: it does not show --%s", command, f.Name)
			}
			delete(shown, f.Name)
		}
		for name := range shown {
			t.Errorf("%s: there is no --%s", command, name)
		}
	}
	if all := strings.Count(block, "\n"); lines != all {
		t.Errorf("of %d lines %d are of commands that are there", all, lines)
	}
}
