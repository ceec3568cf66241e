package api

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
)

// AgentRecord is the body under which the relay keeps a record of an agent's own log: the line as the agent wrote it, so
// that its chain can be proven again.
type AgentRecord struct {
	Agent string          `json:"agent"`
	Line  json.RawMessage `json:"line"`
}

// KindAgentRecord is the kind of such a record.
const KindAgentRecord audit.Kind = "agent.record"

func (a *API) auditRoutes() {
	const ws = "/workspaces/{workspace}"
	route(a, "GET", ws+"/audit/key", authz.AuditRead, "The public key of the checkpoints", 200, func(context.Context, *visit, *inWorkspace) (*out[client.AuditKey], error) {
		der, err := x509.MarshalPKIXPublicKey(a.cfg.LogKey)
		if err != nil {
			return nil, err
		}
		return &out[client.AuditKey]{client.AuditKey{ID: audit.KeyID(a.cfg.LogKey), Algorithm: "ed25519",
			PublicKey: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}}, nil
	})
	a.stream(ws+"/audit/events", "Decoded events (NDJSON); follow=true goes on as they come", []string{"after", "limit", "kind", "follow"}, a.events)
	a.stream(ws+"/audit/log", "The raw chain (NDJSON), for offline verification", []string{"after", "limit"}, a.rawLog)
	a.stream(ws+"/audit/checkpoints", "The signed checkpoints (NDJSON)", nil, func(w http.ResponseWriter, _ *http.Request, log *audit.Log, _ url.Values) error {
		cps, err := log.Checkpoints()
		if err != nil {
			return err
		}
		enc := json.NewEncoder(w)
		for _, c := range cps {
			if err := enc.Encode(c); err != nil {
				return nil // the caller went away
			}
		}
		return nil
	})
}

// stream registers a route that streams from the audit log. Reading it is itself recorded.
func (a *API) stream(path, summary string, names []string, f func(http.ResponseWriter, *http.Request, *audit.Log, url.Values) error) {
	a.routes = append(a.routes, Route{Method: "GET", Path: path, Action: string(authz.AuditRead)})
	o := &huma.Operation{Method: "GET", Path: path, OperationID: "get-" + strings.ReplaceAll(strings.TrimPrefix(path, "/workspaces/{workspace}/"), "/", "-"), Summary: summary, Tags: []string{"audit"},
		Parameters: []*huma.Param{pathParam("workspace")},
		Responses: map[string]*huma.Response{"200": {Description: "One JSON value a line", Content: map[string]*huma.MediaType{protocol.ContentNDJSON: {Schema: &huma.Schema{Type: "string"}}}},
			"default": {Description: "A problem", Content: map[string]*huma.MediaType{client.ContentProblem: {Schema: a.schemaOf(client.Problem{})}}}}}
	for _, n := range names {
		o.Parameters = append(o.Parameters, &huma.Param{Name: n, In: "query", Schema: &huma.Schema{Type: "string"}})
	}
	a.huma.OpenAPI().AddOperation(o)
	a.mux.HandleFunc("GET "+client.BasePath+path, func(w http.ResponseWriter, r *http.Request) {
		v, err := a.enter(r, r.PathValue("workspace"), authz.AuditRead, true)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		q := r.URL.Query()
		for k, vs := range q {
			known := false
			for _, n := range names {
				known = known || n == k
			}
			if !known || len(vs) != 1 {
				a.fail(w, r, invalid("this route takes each parameter once, and only: "+orNone(names), ""))
				return
			}
		}
		ev := a.event(r, v, audit.KindAuditRead)
		ev.Decision, ev.Target = "allow", r.Method+" "+strings.TrimPrefix(r.URL.Path, client.BasePath)
		if err := a.record(r.Context(), ev); err != nil {
			a.fail(w, r, err)
			return
		}
		log, err := a.cfg.Log(v.workspace.ID)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		ctx, leave := a.open.admit(r.Context(), v)
		defer leave()
		p, end := keepPace(ctx, w)
		defer end()
		w = p
		w.Header().Set("Content-Type", protocol.ContentNDJSON)
		if err := f(w, r.WithContext(ctx), log, q); err != nil {
			a.cfg.Logger.Warn("audit stream ended", "request_id", requestID(ctx), "error", err)
			panic(http.ErrAbortHandler)
		}
	})
}

// window reads after and limit. limit 0 means no limit; without after and with a limit, the newest are meant.
func window(q url.Values, log *audit.Log) (after uint64, limit int, err error) {
	if s := q.Get("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil || limit < 1 {
			return 0, 0, invalid("parameter limit: want a number of at least 1", "")
		}
	}
	if s := q.Get("after"); s != "" {
		if after, err = strconv.ParseUint(s, 10, 63); err != nil {
			return 0, 0, invalid("parameter after: want a sequence number", "")
		}
		return after, limit, nil
	}
	if oldest := log.Oldest(); oldest > 0 {
		after = oldest - 1
	}
	return after, limit, nil
}

const page = 256 // records read from the log at a time

func (a *API) rawLog(w http.ResponseWriter, r *http.Request, log *audit.Log, q url.Values) error {
	after, limit, err := window(q, log)
	if err != nil {
		a.fail(w, r, err)
		return nil
	}
	until := log.Head().Seq // what comes meanwhile is for the next call
	for n := 0; after < until; {
		if r.Context().Err() != nil {
			return context.Cause(r.Context())
		}
		recs, err := log.Read(after, page)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.Seq > until || limit > 0 && n >= limit {
				return nil
			}
			if _, err := w.Write(append(bytes.Clone(rec.Line), '\n')); err != nil {
				return nil // the caller went away
			}
			n, after = n+1, rec.Seq
		}
		if len(recs) == 0 {
			return nil
		}
	}
	return nil
}

// events decodes. Without after, limit counts from the newest back, so that a plain list shows what just happened.
func (a *API) events(w http.ResponseWriter, r *http.Request, log *audit.Log, q url.Values) error {
	after, limit, err := window(q, log)
	if err == nil && q.Get("follow") != "" && q.Get("follow") != "true" && q.Get("follow") != "false" {
		err = invalid("parameter follow: want true or false", "")
	}
	if err != nil {
		a.fail(w, r, err)
		return nil
	}
	follow, kind := q.Get("follow") == "true", q.Get("kind")
	ctx, head := r.Context(), log.Head().Seq
	if q.Get("after") == "" && limit > 0 {
		if after, err = a.newest(ctx, log, head, limit, kind); err != nil {
			return err
		}
	}
	rc := http.NewResponseController(w)
	for n := 0; ; {
		if ctx.Err() != nil { // where nothing matches, no write shows that the caller has gone or may no longer
			return context.Cause(ctx)
		}
		changed := log.Changed()
		recs, err := log.Read(after, page)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			after = rec.Seq
			line, match, err := a.decode(rec, kind)
			if err != nil {
				return err
			}
			if !match {
				continue
			}
			if _, err := w.Write(line); err != nil {
				return nil // the caller went away
			}
			if n++; limit > 0 && n >= limit && !follow {
				return nil
			}
		}
		if len(recs) > 0 {
			continue
		}
		if !follow {
			return nil
		}
		_ = rc.Flush()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx) // cut, not ended: the caller must see that
		}
	}
}

// newest finds where to begin so that limit matching events follow, reading back in growing windows.
func (a *API) newest(ctx context.Context, log *audit.Log, head uint64, limit int, kind string) (uint64, error) {
	first := uint64(0)
	if o := log.Oldest(); o > 0 {
		first = o - 1
	}
	if head <= first || uint64(limit) >= head-first {
		return first, nil // all there are
	}
	for span := uint64(limit); ; span *= 4 {
		after := first
		if head > span && head-span > first {
			after = head - span
		}
		var seqs []uint64
		for at := after; at < head; {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			recs, err := log.Read(at, page)
			if err != nil {
				return 0, err
			}
			if len(recs) == 0 {
				break
			}
			for _, rec := range recs {
				at = rec.Seq
				if _, ok, err := a.decode(rec, kind); err != nil {
					return 0, err
				} else if ok {
					if seqs = append(seqs, rec.Seq); len(seqs) >= 2*limit { // only the newest count
						seqs = append(seqs[:0], seqs[len(seqs)-limit:]...)
					}
				}
			}
		}
		if len(seqs) >= limit {
			return seqs[len(seqs)-limit] - 1, nil
		}
		if after == first {
			return first, nil
		}
	}
}

// decode opens a record and gives its event as a line, with the relay's sequence number in front.
func (a *API) decode(rec audit.Record, kind string) (line []byte, match bool, err error) {
	plain, err := audit.Unseal(rec.Body, a.cfg.Directory.OpenEvent)
	if err != nil {
		return nil, false, err
	}
	var wrapped AgentRecord
	if json.Unmarshal(plain, &wrapped) == nil && len(wrapped.Line) > 0 {
		inner, err := audit.ParseLine(wrapped.Line)
		if err != nil {
			return nil, false, err
		}
		plain = inner.Body
	}
	var k struct{ Kind string }
	// A kind that is no text has no kind. It must not be an error: one such record would keep all behind it from their readers.
	if err := json.Unmarshal(plain, &k); err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) || len(plain) < 2 || plain[0] != '{' {
		return nil, false, err
	}
	if kind != "" && k.Kind != kind && !strings.HasPrefix(k.Kind, kind+".") {
		return nil, false, nil
	}
	line = append(line, `{"seq":`...)
	line = strconv.AppendUint(line, rec.Seq, 10)
	if len(plain) > 2 {
		line = append(line, ',')
	}
	line = append(line, plain[1:]...)
	return append(line, '\n'), true, nil
}
