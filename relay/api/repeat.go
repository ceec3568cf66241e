package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// Idempotency keys (draft-ietf-httpapi-idempotency-key-header), where Config says nothing.
const (
	defaultRepeatLife = 24 * time.Hour
	defaultRepeatMost = 10_000
	maxRepeatKey      = 255
)

// makes tells whether a route makes something: those take an idempotency key.
func makes(op huma.Operation) bool {
	return op.Method == http.MethodPost && op.DefaultStatus == http.StatusCreated
}

// tellsAll are the answers that hold no secret, and may be given again. Of any other, what was made is named and nothing is told.
var tellsAll = []reflect.Type{reflect.TypeFor[client.Group](), reflect.TypeFor[client.Connection](), reflect.TypeFor[client.Role](), reflect.TypeFor[client.Team](), reflect.TypeFor[client.Grant](),
	reflect.TypeFor[client.ServiceAccount](), reflect.TypeFor[client.Domain](), reflect.TypeFor[client.Project](), reflect.TypeFor[client.Folder]()}

// repeatable has a request under a key done once. It comes after the guard: who may not, is told of no earlier request.
func (a *API) repeatable(op huma.Operation) func(huma.Context, func(huma.Context)) {
	return func(hc huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(hc)
		values := r.Header.Values("Idempotency-Key")
		v, _ := hc.Context().Value(keyVisit).(*visit)
		if len(values) == 0 || v == nil || !makes(op) {
			next(hc)
			return
		}
		k, err := a.repeatOf(r, v, values)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		under := [3]string{k.Workspace, k.Principal, k.Key}
		if _, busy := a.repeats.LoadOrStore(under, true); busy {
			a.fail(w, r, &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Rule: "idempotency_key", Message: "a request with this idempotency key is under way",
				Hint: "wait for its answer, or send the same again shortly"})
			return
		}
		defer a.repeats.Delete(under)
		was, err := a.cfg.Directory.FindEarlier(r.Context(), k)
		switch {
		case err != nil:
			a.fail(w, r, err)
		case was != nil:
			a.again(w, r, k, was)
		default:
			v.repeat = k
			c, _ := directory.ChangeOf(hc.Context())
			c.Repeat = k
			next(huma.WithContext(hc, directory.WithChange(hc.Context(), &c)))
		}
	}
}

// repeatOf reads the key, and what the request asks for.
func (a *API) repeatOf(r *http.Request, v *visit, values []string) (*directory.Repeat, error) {
	key := values[0]
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' { // a string of RFC 9651; a bare one is the same key
		key = key[1 : len(key)-1]
	}
	ok := len(values) == 1 && key != "" && len(key) <= maxRepeatKey
	for i := 0; ok && i < len(key); i++ {
		ok = key[i] > ' ' && key[i] < 0x7f && key[i] != '"' && key[i] != '\\' && key[i] != ','
	}
	if !ok {
		return nil, invalid("header Idempotency-Key: not one key", fmt.Sprintf("send one string of 1 to %d printable characters without blanks, quotes and commas; a random UUID is a good one", maxRepeatKey))
	}
	b, err := io.ReadAll(r.Body) // the guard holds it whole
	if err != nil {
		return nil, err
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n%s\n%s\n", r.Method, r.URL.EscapedPath(), r.URL.RawQuery)
	sum.Write(b)
	return &directory.Repeat{Workspace: v.workspace.ID, Principal: v.principal.ID, Key: key, Request: sum.Sum(nil), Life: a.cfg.RepeatLife, Most: a.cfg.RepeatMost}, nil
}

// again answers a request that was done before.
func (a *API) again(w http.ResponseWriter, r *http.Request, k *directory.Repeat, was *directory.Earlier) {
	e := &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginRelay, Rule: "idempotency_key"}
	switch at := was.At.UTC().Format(time.RFC3339); {
	case !was.Same(k):
		e.Code, e.Message, e.Hint = protocol.CodeInvalid, "another request was made with this idempotency key at "+at, "take a new key for what is new"
		a.failAs(w, r, http.StatusUnprocessableEntity, e)
		return
	case len(was.Body) > 0:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Idempotency-Replayed", "true")
		var tag struct {
			ETag string `json:"etag"`
		}
		if json.Unmarshal(was.Body, &tag) == nil && tag.ETag != "" {
			w.Header().Set("ETag", tag.ETag)
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write(append(was.Body, '\n'))
		return
	case was.ID != "":
		e.Message = "this was done at " + at + ", of which came " + was.ID + "; what its answer showed once is kept nowhere"
		e.Hint = "if that answer is lost: remove what it made, and make another under a new key; a user gets another code"
	default:
		e.Message, e.Hint = "this was done at "+at+", and its answer was lost", "list what is there; it is among it"
	}
	a.fail(w, r, e)
}

// kept notes what a request under a key made. It is made: what cannot be noted is told of, and changes nothing.
func (a *API) kept(ctx context.Context, v *visit, o any) {
	if v.repeat == nil {
		return
	}
	body := reflect.Indirect(reflect.ValueOf(o)).FieldByName("Body")
	id := ""
	if f := body.FieldByName("ID"); f.IsValid() && f.Kind() == reflect.String {
		id = f.String()
	}
	var whole json.RawMessage
	for _, t := range tellsAll {
		if body.Type() == t {
			var b bytes.Buffer
			enc := json.NewEncoder(&b)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(body.Interface()); err == nil {
				whole = json.RawMessage(strings.TrimSpace(b.String()))
			}
		}
	}
	if err := a.cfg.Directory.KeepAnswer(ctx, v.repeat, id, whole); err != nil {
		a.cfg.Logger.Warn("the answer to a request under an idempotency key could not be kept", "request_id", requestID(ctx), "error", err)
	}
}
