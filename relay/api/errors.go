package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

func invalid(message, hint string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeInvalid, Origin: protocol.OriginRelay, Message: message, Hint: hint}
}

// fail answers an error as problem+json. It must not be called after the first byte of an answer.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) { a.failAs(w, r, 0, err) }

// failAs is fail with a status that no code stands for; 0: the code's own.
func (a *API) failAs(w http.ResponseWriter, r *http.Request, as int, err error) {
	w.Header().Del("Content-Length")
	status, body := a.problem(w.Header(), r, as, err)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// problem makes the answer for an error, and logs what the caller must not see of it.
func (a *API) problem(h http.Header, r *http.Request, as int, err error) (status int, body []byte) {
	e := *protocol.AsError(err)
	if e.Origin == "" {
		e.Origin = protocol.OriginRelay
	}
	if e.RequestID == "" {
		e.RequestID = requestID(r.Context())
	}
	if e.Code == protocol.CodeInternal {
		a.cfg.Logger.Error("request failed", "request_id", e.RequestID, "error", e.Unwrap())
	}
	p := client.NewProblem(&e)
	if as != 0 {
		p.Status, p.Title = as, http.StatusText(as)
	}
	b, merr := json.Marshal(p)
	if merr != nil {
		panic(http.ErrAbortHandler)
	}
	h.Set("Content-Type", client.ContentProblem)
	h.Set(protocol.HeaderOrigin, string(e.Origin)) // tells our own answer from one of an http target
	if e.Code == protocol.CodeUnauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	retryAfter(h, &e)
	return p.Status, append(b, '\n')
}

// retryAfter says when it is worth trying again, in whole seconds.
func retryAfter(h http.Header, e *protocol.Error) {
	if e.RetryAfterMs > 0 && h != nil {
		h.Set("Retry-After", strconv.FormatInt((e.RetryAfterMs+999)/1000, 10))
	}
}

// humaError is a problem in the shape that huma wants of its errors.
type humaError struct{ client.Problem }

func (e *humaError) Error() string             { return e.Detail }
func (e *humaError) GetStatus() int            { return e.Status }
func (e *humaError) ContentType(string) string { return client.ContentProblem }

var codeOfStatus = map[int]protocol.Code{400: protocol.CodeInvalid, 401: protocol.CodeUnauthenticated, 403: protocol.CodeDenied, 404: protocol.CodeNotFound,
	406: protocol.CodeInvalid, 408: protocol.CodeTimeout, 409: protocol.CodeConflict, 412: protocol.CodePrecondition, 413: protocol.CodeTooLarge,
	415: protocol.CodeInvalid, 422: protocol.CodeInvalid, 429: protocol.CodeRateLimited}

// newHumaError replaces huma's own errors, whose bodies echo the value that was sent: only the place and what is wrong
// with it are told.
func newHumaError(status int, msg string, errs ...error) huma.StatusError {
	code, ok := codeOfStatus[status]
	if !ok {
		code = protocol.CodeInternal
		msg = "internal error; the details are in the log under the request id"
	}
	e := &protocol.Error{Code: code, Message: msg, Origin: protocol.OriginRelay}
	if code != protocol.CodeInternal {
		var faults []string
		for _, err := range errs {
			if d, ok := err.(huma.ErrorDetailer); ok {
				det := d.ErrorDetail()
				if strings.Contains(det.Message, "json: ") || strings.Contains(det.Message, "invalid character") { // encoding/json's own words hold values
					det = &huma.ErrorDetail{Location: det.Location, Message: "not the JSON that this route takes"}
				}
				if strings.Contains(det.Message, "unknown content type") { // behind it stands what was sent
					det = &huma.ErrorDetail{Location: det.Location, Message: "unknown content type; want application/json"}
				}
				faults = append(faults, fmt.Sprintf("%s: %s", strings.TrimPrefix(det.Location, "body."), det.Message))
			}
		}
		if len(faults) > 0 {
			e.Message = strings.Join(faults, "; ")
		}
	}
	return problem(e)
}

// newHumaErrorFor adds the request's id.
func newHumaErrorFor(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
	e := newHumaError(status, msg, errs...)
	if h, ok := e.(*humaError); ok && ctx != nil {
		h.RequestID = requestID(ctx.Context())
	}
	return e
}

// problem turns an Error into what a huma handler returns.
func problem(err error) *humaError {
	e := *protocol.AsError(err)
	if e.Origin == "" {
		e.Origin = protocol.OriginRelay
	}
	return &humaError{client.NewProblem(&e)}
}
