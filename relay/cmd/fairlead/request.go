package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"sort"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
)

type requestCommand struct {
	Connection string   `arg:"" help:"Name of the connection."`
	Method     string   `arg:"" help:"GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS."`
	Path       string   `arg:"" help:"Path and query at the service, beginning with /."`
	Data       string   `short:"d" placeholder:"DATA" help:"Body; @FILE reads it from a file, @- from standard input."`
	Header     []string `short:"H" sep:"none" placeholder:"'NAME: VALUE'" help:"Header to send. May be given several times."`
	Include    bool     `short:"i" help:"Print status and headers of the answer before its body."`
}

func (*requestCommand) Examples() []string {
	return []string{
		"fairlead request crm GET '/api/v1/customers?limit=5'",
		"fairlead request crm POST /api/v1/customers --header 'Content-Type: application/json' --data @customer.json",
	}
}

func (k *requestCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	header := http.Header{}
	for _, h := range k.Header {
		name, value, ok := strings.Cut(h, ":")
		name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
		if !ok || name == "" || strings.ContainsAny(h, "\r\n") || strings.HasPrefix(name, protocol.HeaderPrefix) {
			return cli.Usage("--header %q: want 'NAME: VALUE'", h)
		}
		header.Add(name, strings.TrimSpace(value))
	}
	body, size, err := k.body(t)
	if err != nil {
		return err
	}
	if body != nil {
		defer body.Close()
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var content io.Reader // a nil *os.File in it would not be nil
	if body != nil {
		content = body
	}
	resp, err := c.Request(ctx, k.Connection, strings.ToUpper(k.Method), k.Path, header, content, size)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if k.Include {
		printHeader(t, resp)
	}
	if _, err := io.Copy(t.Data(), resp.Body); err != nil {
		return &protocol.Error{Code: protocol.CodeInterrupted, Message: "the answer broke off before its end", Cause: err}
	}
	if resp.StatusCode >= 400 {
		return &protocol.Error{Code: protocol.CodeUpstream, Origin: protocol.OriginTarget, Message: "the service answered " + cli.Clean(resp.Status)}
	}
	return nil
}

// body gives the body and its size: -1 when it is not known, no reader when there is no body.
func (k *requestCommand) body(t *cli.Term) (io.ReadCloser, int64, error) {
	name, isFile := strings.CutPrefix(k.Data, "@")
	switch {
	case k.Data == "":
		return nil, 0, nil
	case !isFile:
		return io.NopCloser(strings.NewReader(k.Data)), int64(len(k.Data)), nil
	case name == "-":
		return io.NopCloser(t.In), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("read body: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("read body: %w", err)
	}
	if !st.Mode().IsRegular() {
		return f, -1, nil
	}
	if st.Size() == 0 {
		return nil, 0, f.Close()
	}
	return f, st.Size(), nil
}

func printHeader(t *cli.Term, resp *http.Response) {
	t.Printf("%s %s\n", resp.Proto, cli.Clean(resp.Status))
	names := make([]string, 0, len(resp.Header))
	for name := range resp.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, v := range resp.Header[name] {
			t.Printf("%s: %s\n", name, cli.Clean(v))
		}
	}
	t.Printf("\n")
}
