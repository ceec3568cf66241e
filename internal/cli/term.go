package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// MaxSecret bounds a secret read from a file, a pipe or a prompt.
const MaxSecret = 64 << 10

// Term is where a command reads and prints. Results go to Out, everything else (remarks, progress, prompts, errors) to
// Err. Not for concurrent use.
type Term struct {
	In       io.Reader
	Out, Err io.Writer
	Program  string
}

// Output is embedded by commands that print data.
type Output struct {
	Output string `short:"o" enum:"table,json" default:"table" placeholder:"FORMAT" help:"How to print the answer: table or json."`
}

// JSON reports whether the answer is wanted as JSON.
func (o Output) JSON() bool { return o.Output == "json" }

// RowOutput is embedded by commands that print rows.
type RowOutput struct {
	Output string `short:"o" enum:"table,json,ndjson,csv" default:"table" placeholder:"FORMAT" help:"How to print the answer: table, json, ndjson or csv."`
}

// Printf prints on Out. Arguments from elsewhere must have passed Clean.
func (t *Term) Printf(format string, args ...any) { _, _ = fmt.Fprintf(t.Out, format, args...) }

// Notef prints a remark on Err.
func (t *Term) Notef(format string, args ...any) { _, _ = fmt.Fprintf(t.Err, format, args...) }

// JSON prints v indented on Out.
func (t *Term) JSON(v any) error {
	enc := json.NewEncoder(t.Data())
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Data is Out for bytes from elsewhere: as they are into a file or pipe, without control characters on a terminal.
func (t *Term) Data() io.Writer {
	if IsTerminal(t.Out) {
		return &cleanWriter{w: t.Out}
	}
	return t.Out
}

// IsTerminal reports whether f (an *os.File) is a terminal.
func IsTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// ReadSecret reads a secret from In: behind a prompt and without echo when In is a terminal, else everything up to the
// end of the first line. Surrounding blanks are cut. An empty secret is an error.
func (t *Term) ReadSecret(prompt string) (secret.Bytes, error) {
	b, err := t.readLine(prompt)
	if err != nil {
		return secret.Bytes{}, err
	}
	return cut(b, prompt)
}

// ReadPassword is ReadSecret for what may begin or end with a blank: only the end of the line is cut.
func (t *Term) ReadPassword(prompt string) (secret.Bytes, error) {
	b, err := t.readLine(prompt)
	if err != nil {
		return secret.Bytes{}, err
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return secret.Bytes{}, Usage("%s is empty", prompt)
	}
	return secret.New(b), nil
}

// ReadNewPassword asks twice on a terminal, for what nobody sees when typing.
func (t *Term) ReadNewPassword(prompt string) (secret.Bytes, error) {
	p, err := t.ReadPassword(prompt)
	if err != nil || !IsTerminal(t.In) {
		return p, err
	}
	again, err := t.ReadPassword(prompt + ", again")
	if err == nil && !p.Equal(again) {
		err = Usage("the two are not the same")
	}
	return p, err
}

// readLine reads up to the end of the first line, behind a prompt and without echo on a terminal.
func (t *Term) readLine(prompt string) ([]byte, error) {
	if IsTerminal(t.In) {
		t.Notef("%s: ", prompt)
		b, err := term.ReadPassword(int(t.In.(*os.File).Fd()))
		t.Notef("\n")
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", prompt, err)
		}
		return b, nil
	}
	// Byte by byte, so that what stands after the line is left for the command.
	var b []byte
	one := make([]byte, 1)
	for len(b) <= MaxSecret {
		n, err := t.In.Read(one)
		if n == 1 {
			if one[0] == '\n' {
				return b, nil
			}
			b = append(b, one[0])
		}
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", prompt, err)
		}
	}
	return nil, Usage("%s is longer than %d bytes", prompt, MaxSecret)
}

// ReadSecretFile reads a secret from a file; "-" reads it from In. Surrounding blanks are cut.
func (t *Term) ReadSecretFile(path, what string) (secret.Bytes, error) {
	if path == "-" {
		return t.ReadSecret(what)
	}
	f, err := os.Open(path)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("read %s: %w", what, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxSecret+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("read %s: %w", what, err)
	}
	if len(b) > MaxSecret {
		return secret.Bytes{}, Usage("%s in %s is longer than %d bytes", what, path, MaxSecret)
	}
	return cut(b, what)
}

func cut(b []byte, what string) (secret.Bytes, error) {
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return secret.Bytes{}, Usage("%s is empty", what)
	}
	return secret.New(b), nil
}
