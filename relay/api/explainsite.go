package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// askSite has an agent say what it would decide, where the question says enough of the operation; else the explanation tells what the
// agents offer, and what to say beside.
func (a *API) askSite(ctx context.Context, v *visit, c *directory.Connection, action authz.Action, i *inExplain, e *client.Explanation) error {
	op, ok := strings.CutPrefix(string(action), "connection.")
	if !ok {
		return i.onlyOf(string(action))
	}
	r := protocol.Request{ID: requestID(ctx), Operation: protocol.Operation(op), Principal: v.principal.ID, Header: http.Header{}}
	if action == authz.RequestGet {
		r.Operation = protocol.OpRequest
	}
	more, body, err := i.fill(&r)
	if err != nil {
		return err
	}
	switch {
	case c.Profile != "" && e.Agent == client.AgentMissing:
		return nil
	case more != "":
		if e.Agent == client.AgentOffers {
			e.AgentHint = "the site has the last word: " + more
		}
		return nil
	}
	verdict, agent, err := a.cfg.Dispatch.Explain(ctx, c, r, body)
	switch {
	case err == nil:
		e.Agent, e.AgentHint = client.AgentAnswered, ""
		e.Site = &client.SiteVerdict{Agent: agent, Allow: verdict.Allow, Rule: verdict.Rule, Reason: verdict.Reason, Hint: verdict.Hint, Code: string(verdict.Code), Statement: verdict.Statement,
			MaxRows: verdict.MaxRows, MaxBytes: verdict.MaxBytes, TimeoutMs: verdict.TimeoutMs}
		ev := a.eventIn(ctx, v, audit.KindExplained)
		ev.Origin = string(protocol.OriginAgent) // rule and decision are the agent's own words
		ev.Connection, ev.ConnectionName, ev.Group, ev.Profile, ev.Agent, ev.Operation = c.ID, c.Name, c.Group, c.Profile, agent, op
		if ev.Decision, ev.Rule, ev.Code = "allow", verdict.Rule, string(verdict.Code); !verdict.Allow {
			ev.Decision = "deny"
		}
		if _, err := a.cfg.Dispatch.Record(ev); err != nil {
			a.cfg.Logger.Error("a question to the site could not be recorded", "request_id", ev.RequestID, "error", err)
		}
	case c.Profile == "" && agent == "":
		e.Agent, e.AgentHint = client.AgentMissing, ""
	default:
		p := protocol.AsError(err)
		e.AgentHint = "the site could not be asked: " + p.Message
		if p.Hint != "" {
			e.AgentHint += "; " + p.Hint
		}
	}
	return nil
}

// fill takes what the question says of the operation. more says what it lacks for the site to be asked.
func (i *inExplain) fill(r *protocol.Request) (more string, body *bytes.Reader, err error) {
	body = bytes.NewReader(nil)
	switch r.Operation {
	case protocol.OpQuery, protocol.OpExec, protocol.OpTransaction:
		if err := i.onlyOf(string(r.Operation), "sql", "statement"); err != nil {
			return "", nil, err
		}
		st := protocol.Statement{SQL: i.SQL, Name: i.Statement}
		var b any = protocol.QueryBody{Statement: st}
		if r.Operation == protocol.OpTransaction {
			b = protocol.TransactionBody{Statements: []protocol.Statement{st}}
		}
		text, err := json.Marshal(b)
		if err != nil {
			return "", nil, err
		}
		if i.SQL != "" && i.Statement != "" {
			return "", nil, invalid("want the parameter sql or statement, not both", "statement is the name of one that the site declares")
		}
		if i.SQL+i.Statement == "" {
			more = "say which statement, by sql or statement (--sql, --statement), and it is asked"
		}
		return more, bytes.NewReader(text), nil
	case protocol.OpRequest:
		if err := i.onlyOf(string(r.Operation), "method", "target"); err != nil {
			return "", nil, err
		}
		if r.Method, r.Target = strings.ToUpper(i.Method), i.Target; r.Method == "" || !strings.HasPrefix(r.Target, "/") {
			more = "say which request, by method and target, a path that begins with / (--method, --target), and it is asked"
		}
	case protocol.OpMove:
		if r.Path, r.To = i.Path, i.To; r.Path == "" || r.To == "" {
			more = "say what to move where, by path and to (--path, --to), and it is asked"
		}
		return more, body, i.onlyOf(string(r.Operation), "path", "to")
	case protocol.OpDial, protocol.OpSchema:
		return "", body, i.onlyOf(string(r.Operation))
	default:
		if r.Path = i.Path; r.Path == "" && r.Operation != protocol.OpList {
			more = "say which file or folder, by path (--path), and it is asked"
		}
		return more, body, i.onlyOf(string(r.Operation), "path")
	}
	return more, body, nil
}

// bounded refuses what no operation takes: an agent would take it for a broken request, not for a question.
func (i *inExplain) bounded() error {
	for _, p := range [][2]string{{"path", i.Path}, {"to", i.To}, {"method", i.Method}, {"target", i.Target}} {
		if len(p[1]) > protocol.MaxParamBytes {
			return invalid("parameter "+p[0]+" is too long", fmt.Sprintf("at most %d bytes", protocol.MaxParamBytes))
		}
	}
	return nil
}

// onlyOf refuses what an action does not take, so that nothing is silently ignored.
func (i *inExplain) onlyOf(action string, takes ...string) error {
	given := map[string]string{"sql": i.SQL, "statement": i.Statement, "path": i.Path, "to": i.To, "method": i.Method, "target": i.Target}
	for _, k := range takes {
		delete(given, k)
	}
	for _, k := range []string{"sql", "statement", "path", "to", "method", "target"} {
		if given[k] != "" {
			return invalid("parameter "+k+": "+action+" does not take it", "query, exec and transaction take sql or statement; files' operations path (move: to, too); request method and target")
		}
	}
	return nil
}
