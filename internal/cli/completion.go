package cli

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/alecthomas/kong"
)

// completeCommand is what the completion scripts call: PROGRAM __complete SHELL WORD..., the last word being the one
// under the cursor. It answers one candidate a line, "WORD<tab>what it is", and ":files" where a file name fits.
const completeCommand = "__complete"

type completionCommand struct {
	name  string
	Shell string `arg:"" enum:"bash,zsh,fish,powershell" help:"bash, zsh, fish or powershell."`
}

func (c *completionCommand) Examples() []string {
	return []string{
		"# bash: in ~/.bashrc", "source <(" + c.name + " completion bash)",
		"# zsh: in ~/.zshrc, after compinit", "source <(" + c.name + " completion zsh)",
		"# fish", c.name + " completion fish > ~/.config/fish/completions/" + c.name + ".fish",
		"# PowerShell: in $PROFILE", c.name + " completion powershell | Out-String | Invoke-Expression",
	}
}

func (c *completionCommand) Run(t *Term) error {
	script := strings.NewReplacer("@PROGRAM@", t.Program, "@FUNC@", strings.ReplaceAll(t.Program, "-", "_")).Replace(scripts[c.Shell])
	_, err := io.WriteString(t.Out, script)
	return err
}

var scripts = map[string]string{
	"bash": `# bash completion for @PROGRAM@
_@FUNC@_complete() {
    local line cur="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while IFS= read -r line; do
        if [ "$line" = ":files" ]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$cur")
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <("${COMP_WORDS[0]}" __complete bash "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _@FUNC@_complete @PROGRAM@
`,
	"zsh": `#compdef @PROGRAM@
_@FUNC@() {
    local -a candidates
    local line files=0
    while IFS= read -r line; do
        if [[ $line == ":files" ]]; then
            files=1
        else
            candidates+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        fi
    done < <("${words[1]}" __complete zsh "${(@)words[2,CURRENT]}" 2>/dev/null)
    (( ${#candidates} )) && _describe '@PROGRAM@' candidates
    (( files )) && _files
    return 0
}
compdef _@FUNC@ @PROGRAM@
`,
	"fish": `# fish completion for @PROGRAM@
function __@FUNC@_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in ($words[1] __complete fish $words[2..-1] "$current" 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path "$current"
        else
            echo $line
        end
    end
end
complete -c @PROGRAM@ -f -a '(__@FUNC@_complete)'
`,
	// Windows PowerShell drops empty arguments of native commands, so the word under the cursor goes behind a "~".
	"powershell": `# PowerShell completion for @PROGRAM@
Register-ArgumentCompleter -Native -CommandName '@PROGRAM@' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $program = $commandAst.CommandElements[0].ToString()
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition } | ForEach-Object { $_.ToString() })
    & $program __complete powershell @words "~$wordToComplete" 2>$null | ForEach-Object {
        $candidate, $what = $_ -split [char]9, 2
        if ($candidate -eq ':files') {
            Get-ChildItem -Path "$wordToComplete*" -Name | ForEach-Object {
                [System.Management.Automation.CompletionResult]::new($_, $_, 'ProviderItem', $_)
            }
        } else {
            if (-not $what) { $what = $candidate }
            [System.Management.Automation.CompletionResult]::new($candidate, $candidate, 'ParameterValue', $what)
        }
    }
}
`,
}

// complete answers one question of a completion script. It never fails: no candidates is an answer.
func complete(model *kong.Application, args []string, w io.Writer) int {
	if len(args) < 2 {
		return 0
	}
	shell, words := args[0], args[1:]
	last := words[len(words)-1]
	if shell == "powershell" {
		last = strings.TrimPrefix(last, "~")
	}
	before, prefix := words[:len(words)-1], ""
	if shell == "bash" { // bash makes three words of --flag=value
		if last == "=" {
			last = ""
			before = append(append([]string(nil), before...), "=")
		}
		before = joinEquals(before)
	}
	out := bufio.NewWriter(w)
	defer out.Flush()

	node, flag, at, ended := walk(model, before)
	switch {
	case flag != nil:
	case !ended && strings.HasPrefix(last, "--") && strings.Contains(last, "="):
		name, value, _ := strings.Cut(last, "=")
		if flag = findFlag(node, name); flag == nil {
			return 0
		}
		prefix, last = name+"=", value
	case !ended && strings.HasPrefix(last, "-"):
		for _, f := range visibleFlags(node) {
			offer(out, "--"+f.Name, f.Help, last)
		}
		return 0
	}
	if flag != nil {
		offerValue(out, flag.Value, prefix, last)
		return 0
	}
	if at < len(node.Positional) {
		offerValue(out, node.Positional[at], "", last)
	} else if n := len(node.Positional); n > 0 && node.Positional[n-1].IsCumulative() {
		offerValue(out, node.Positional[n-1], "", last)
	}
	if at == 0 {
		for _, child := range node.Children {
			if !child.Hidden {
				offer(out, child.Name, child.Help, last)
			}
		}
	}
	return 0
}

// walk follows words through the model: the command they lead to, the flag whose value comes next, how many positionals
// are given, and whether "--" ended the flags.
func walk(model *kong.Application, words []string) (node *kong.Node, flag *kong.Flag, at int, ended bool) {
	node = model.Node
	for _, word := range words {
		switch {
		case flag != nil:
			flag = nil
		case ended:
			at++
		case word == "--":
			ended = true
		case strings.HasPrefix(word, "-") && word != "-":
			name, _, given := strings.Cut(word, "=")
			f := findFlag(node, name)
			if f == nil || f.IsBool() || f.IsCounter() {
				continue
			}
			if given || !strings.HasPrefix(word, "--") && len(name) > 2 {
				continue
			}
			flag = f
		default:
			if child := findChild(node, word); child != nil && at == 0 {
				node = child
			} else {
				at++
			}
		}
	}
	return node, flag, at, ended
}

// joinEquals undoes the word splitting of bash: "--flag", "=", "value" become "--flag=value". A "--flag", "=" at the
// end, whose value is under the cursor, becomes "--flag".
func joinEquals(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		if words[i] != "=" || len(out) == 0 || !strings.HasPrefix(out[len(out)-1], "--") {
			out = append(out, words[i])
			continue
		}
		if i+1 < len(words) {
			i++
			out[len(out)-1] += "=" + words[i]
		}
	}
	return out
}

func findChild(node *kong.Node, word string) *kong.Node {
	for _, c := range node.Children {
		if c.Name == word {
			return c
		}
		for _, a := range c.Aliases {
			if a == word {
				return c
			}
		}
	}
	return nil
}

func visibleFlags(node *kong.Node) []*kong.Flag {
	var flags []*kong.Flag
	for _, group := range node.AllFlags(true) {
		flags = append(flags, group...)
	}
	sort.Slice(flags, func(i, j int) bool { return flags[i].Name < flags[j].Name })
	return flags
}

func findFlag(node *kong.Node, word string) *kong.Flag {
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			if word == "--"+f.Name || f.Short != 0 && strings.HasPrefix(word, "-"+string(f.Short)) && !strings.HasPrefix(word, "--") {
				return f
			}
		}
	}
	return nil
}

func offerValue(w io.Writer, v *kong.Value, prefix, last string) {
	switch {
	case v.Enum != "":
		for _, e := range v.EnumSlice() {
			if strings.HasPrefix(e, last) {
				offer(w, prefix+e, v.Help, prefix)
			}
		}
	case v.Tag != nil && (v.Tag.Type == "path" || v.Tag.Type == "existingfile" || v.Tag.Type == "existingdir"):
		_, _ = io.WriteString(w, ":files\n")
	}
}

func offer(w io.Writer, word, help, last string) {
	if strings.HasPrefix(word, last) {
		help, _, _ = strings.Cut(help, "\n")
		_, _ = fmt.Fprintf(w, "%s\t%s\n", word, help)
	}
}
