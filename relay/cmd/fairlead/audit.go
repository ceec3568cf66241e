package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

type auditCommands struct {
	List   auditList   `cmd:"" help:"Print events of the audit log."`
	Tail   auditTail   `cmd:"" help:"Print events as they happen."`
	Verify auditVerify `cmd:"" help:"Prove that no event was changed, removed or put in: the chain is checked on this machine."`
	Export auditExport `cmd:"" help:"Write the raw chain, or the checkpoints, to standard output."`
	Key    auditKey    `cmd:"" help:"Print the public key of the checkpoints. Keep it where the relay cannot write."`
}

type eventOutput struct {
	Output string `short:"o" enum:"table,json,ndjson" default:"table" placeholder:"FORMAT" help:"How to print events: table, json (one array; tail: an object a line) or ndjson."`
}

type auditList struct {
	After *uint64 `placeholder:"SEQ" help:"Events after this sequence number, oldest first. Without it, the newest."`
	Limit int     `default:"200" placeholder:"N" help:"At most so many; 0 means all."`
	Kind  string  `placeholder:"KIND" help:"Only events of this kind, for example operation.denied."`
	eventOutput
}

func (*auditList) Examples() []string {
	return []string{"fairlead audit list --limit 20", "fairlead audit list --after 1000 --output ndjson > events.ndjson"}
}

func (k *auditList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if k.Limit < 0 {
		return cli.Usage("--limit %d: want a number that is not negative", k.Limit)
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	w := cli.NewTable(t.Out, eventHeader, []bool{true})
	between, found := "[\n", 0
	names := k.names(ctx, c)
	q := client.AuditQuery{Limit: k.Limit, Kind: k.Kind}
	if k.After != nil {
		q.After, q.Oldest = *k.After, true
	}
	for e, err := range c.AuditEvents(ctx, q) {
		if err == nil {
			found++
			switch k.Output {
			case "table":
				err = w.Row(names.row(e)...)
			case "json":
				_, err = fmt.Fprintf(t.Data(), "%s  %s", between, bytes.TrimSpace(e.Raw))
				between = ",\n"
			default:
				err = raw(t, e)
			}
		}
		if err != nil {
			return err
		}
	}
	// A newer relay may know more kinds, so one that is unknown here is asked for all the same.
	if found == 0 && k.Kind != "" && !slices.Contains(audit.Kinds, audit.Kind(k.Kind)) {
		t.Notef("%s is no kind that this version knows; those are: %s\n", cli.Clean(k.Kind), kindNames())
	}
	switch {
	case k.Output == "table":
		return w.Flush()
	case k.Output == "json" && between == "[\n":
		return t.JSON([]any{})
	case k.Output == "json":
		_, err = fmt.Fprint(t.Data(), "\n]\n")
	}
	return err
}

func kindNames() string {
	names := make([]string, len(audit.Kinds))
	for i, kind := range audit.Kinds {
		names[i] = string(kind)
	}
	return strings.Join(names, ", ")
}

var eventHeader = []string{"SEQ", "TIME", "BY", "KIND", "RESULT", "REQUEST", "WHO", "FROM", "CONNECTION", "OPERATION", "RULE", "WHAT"}

// eventWidths are the widths of followed events, whose cells are not known ahead: those of what is usual.
var eventWidths = []int{5, 20, 5, 17, 7, 14, 15, 15, 14, 10, 24, 0}

// raw prints an event as the relay sent it, a line.
func raw(t *cli.Term, e client.AuditEvent) error {
	_, err := t.Data().Write(append(bytes.TrimSpace(e.Raw), '\n'))
	return err
}

// connNames gives the names of connections by id. Events hold no names in the clear.
type connNames map[string]string

// names asks once, for tables alone. A caller who may not list connections sees ids.
func (k *eventOutput) names(ctx context.Context, c *client.Client) connNames {
	if k.Output != "table" {
		return nil
	}
	list, err := c.Connections(ctx)
	if err != nil {
		return nil // events are what was asked for
	}
	n := make(connNames, len(list))
	for _, conn := range list {
		n[conn.ID] = conn.Name
	}
	return n
}

// row is an event as a table shows it. Relay and agent both record an operation, under one request id.
func (n connNames) row(e client.AuditEvent) []string {
	what := e.Target
	if what == "" {
		what = e.Statement
	}
	if what == "" && e.Rows > 0 {
		what = count(e.Rows, "row")
	}
	if e.Kind == "resource.changed" && e.Status != "" || e.Kind == "operation.denied" {
		for _, key := range slices.Sorted(maps.Keys(e.Detail)) { // long, so once: when it is done
			what += " " + key + "=" + short(e.Detail[key])
		}
	}
	who, connection := short(e.Principal), e.Connection
	if p := e.Claimed["principal"]; who == "" && p != "" {
		who = short(p) + "*" // the relay told the agent so
	}
	if who == "" {
		who = short(e.Agent)
	}
	if connection == "" {
		connection = e.Claimed["connection"]
	}
	if name, ok := n[connection]; ok {
		connection = name
	}
	by := short(e.Source)
	switch {
	case strings.HasPrefix(by, "rel_"):
		by = "relay"
	case strings.HasPrefix(by, "agt_"):
		by = "agent"
	}
	// What came of it says more than the decision that let it begin.
	result := e.Code
	if result == "" {
		result = e.Status
	}
	if result == "" {
		result = e.Decision
	}
	return []string{strconv.FormatUint(e.Seq, 10), stamp(e.Time), by, e.Kind, result, short(e.RequestID), who, e.SourceAddr, short(connection), e.Operation, short(e.Rule), what}
}

// short cuts an id (prefix, "_", 26 letters and digits) to its first ten; what is no id stays as it is.
func short(id string) string {
	prefix, rest, ok := strings.Cut(id, "_")
	if !ok || len(prefix) > 3 || len(rest) != 26 || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return id
	}
	return prefix + "_" + rest[:10]
}

// eventLines prints events one by one, each at once, under a header.
type eventLines struct {
	w     io.Writer
	names connNames
	begun bool
}

func (l *eventLines) print(e client.AuditEvent) error {
	rows := [][]string{l.names.row(e)}
	if !l.begun {
		l.begun, rows = true, [][]string{eventHeader, rows[0]}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if cell = cli.Clean(cell); cell == "" {
				cell = "-"
			}
			pad := strings.Repeat(" ", max(0, eventWidths[i]-cli.Width(cell)))
			switch {
			case i == 0:
				b.WriteString(pad + cell)
			case i == len(row)-1:
				b.WriteString("  " + cell)
			default:
				b.WriteString("  " + cell + pad)
			}
		}
		if _, err := fmt.Fprintln(l.w, b.String()); err != nil {
			return err
		}
	}
	return nil
}

type auditTail struct {
	After *uint64 `placeholder:"SEQ" help:"Begin after this sequence number. Without it, with what happens from now on."`
	Kind  string  `placeholder:"KIND" help:"Only events of this kind."`
	eventOutput
}

func (*auditTail) Examples() []string {
	return []string{"fairlead audit tail", "fairlead audit tail --after 0 --output ndjson"}
}

func (k *auditTail) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var after uint64
	if k.After != nil {
		after = *k.After
	} else if after, err = newest(ctx, c); err != nil {
		return err
	}
	lines := eventLines{w: t.Out, names: k.names(ctx, c)}
	for try := 0; ; try++ {
		q := client.AuditQuery{After: after, Kind: k.Kind, Follow: true}
		for e, ferr := range c.AuditEvents(ctx, q) {
			if err = ferr; err != nil {
				break
			}
			after, try = max(after, e.Seq), 0
			print := lines.print
			if k.Output != "table" {
				print = func(e client.AuditEvent) error { return raw(t, e) }
			}
			if err := print(e); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return nil // Ctrl-C is the way to end it
		}
		if err != nil && client.CodeOf(err) != protocol.CodeInterrupted && client.CodeOf(err) != protocol.CodeUnavailable {
			return err
		}
		if try >= 10 {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Duration(min(try+1, 5)) * time.Second):
		}
	}
}

// newest finds the sequence number of the last event: a limit without a beginning counts from the newest back.
func newest(ctx context.Context, c *client.Client) (uint64, error) {
	var last uint64
	for e, err := range c.AuditEvents(ctx, client.AuditQuery{Limit: 1}) {
		if err != nil {
			return 0, err
		}
		last = max(last, e.Seq)
	}
	return last, nil
}
