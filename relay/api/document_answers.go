package api

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
	"github.com/fairleadhq/fairlead/relay/dispatch"
)

const exampleID = "req_eu4obbixem3joqh62obojjdyh4"

// A refusal is a problem that operations can answer: when, with which status, and what the relay says.
type refusal struct {
	status int
	name   string // of the component, and of the example
	what   string
	when   func(o documented) bool
	err    *protocol.Error
}

func always(documented) bool { return true }

func below(part string) func(documented) bool {
	return func(o documented) bool { return strings.Contains(o.route.Path, part) }
}

func also(all ...func(documented) bool) func(documented) bool {
	return func(o documented) bool {
		for _, f := range all {
			if !f(o) {
				return false
			}
		}
		return true
	}
}

func isJSON(o documented) bool  { return o.json() }
func isData(o documented) bool  { return o.data }
func isSmall(o documented) bool { return o.small() }

// proves: it takes a password or a code, and counts those that fail.
func proves(o documented) bool {
	switch o.Path {
	case "/sign-in", "/sign-in/first", "/sign-in/hand-over", "/sign-in/passkey", "/sign-in/passkey/begin", "/account/confirm", "/account/password":
		return true
	case "/account/second-factor":
		return o.Method == http.MethodPut
	}
	return false
}

func does(ops ...protocol.Operation) func(documented) bool {
	return func(o documented) bool {
		for _, op := range ops {
			if o.data && (o.OperationID == string(op) || op == protocol.OpRequest && strings.Contains(o.Path, "/http/")) {
				return true
			}
		}
		return false
	}
}

func relaySays(code protocol.Code, rule, message, hint string) *protocol.Error {
	return &protocol.Error{Code: code, Origin: protocol.OriginRelay, Rule: rule, Message: message, Hint: hint}
}

// refusals of all operations but for 403, which names the action. Of several with one status, the document holds each as an example.
func refusals() []refusal {
	agent := func(code protocol.Code, message string) *protocol.Error {
		return &protocol.Error{Code: code, Origin: protocol.OriginAgent, Message: message}
	}
	return []refusal{
		{400, "Invalid", "The request is not in order; detail names the place.", always, invalid("the path is not in its canonical form", "write it without empty, '.' or '..' segments")},
		{400, "Malformed", "The body is not well-formed, of another media type, or a member is missing, unknown or does not fit.", isJSON, invalid("the body is not well-formed JSON (near byte 1)", "")},
		{400, "MediaType", "", also(isSmall, isJSON), protocol.Errorf(protocol.CodeInvalid, "body: unknown content type; want application/json")},
		{400, "Missing", "", also(isSmall, isJSON), protocol.Errorf(protocol.CodeInvalid, "body: expected required property name to be present")},
		{401, "Unauthenticated", "No valid token or session was given.", func(o documented) bool { return !o.route.Anonymous }, protocol.AsError(unauthenticated())},
		{401, "SignInRefused", "What was sent does not fit together, or a code is wanted (rule `sign_in.second_factor`).", func(o documented) bool { return o.route.Anonymous },
			relaySays(protocol.CodeUnauthenticated, "", "the relay does not let you in: workspace, user name, password, code and address do not all fit",
				"check them; your address must be on the workspace's allowlist; an admin can give you a new one-time code")},
		{404, "NotFound", "It is not there, or not yours to see: both look the same.", below("{workspace}"), dispatch.NotFound("workspace")},
		{404, "NoSession", "There is no such session of yours.", below("/account/sessions/"), protocol.Errorf(protocol.CodeNotFound, "no such session")},
		{404, "NoOwnToken", "There is no such token of yours.", below("/account/tokens/"), protocol.Errorf(protocol.CodeNotFound, "no such token")},
		{404, "NoOwnPasskey", "There is no such passkey of yours.", below("/account/passkeys/{"), protocol.Errorf(protocol.CodeNotFound, "no such passkey")},
		{409, "NoPasskeys", "The relay has no passkeys, or you have none.", below("/passkey"), directory.PasskeysAreOff()},
		{409, "KeyUnderWay", "There is one already, or a request under the same key is under way or cannot be answered again.", func(o documented) bool { return makes(*o.Operation) },
			relaySays(protocol.CodeConflict, "idempotency_key", "a request with this idempotency key is under way", "wait for its answer, or send the same again shortly")},
		{409, "Conflict", "What is there does not let it be done: look, then decide.", func(o documented) bool { return o.changes && !o.data }, protocol.Errorf(protocol.CodeConflict, "it was changed meanwhile")},
		{409, "FileConflict", "What is there does not let it be done.", does(protocol.OpWrite, protocol.OpDelete, protocol.OpMove, protocol.OpMkdir), &protocol.Error{Code: protocol.CodeConflict, Origin: protocol.OriginTarget, Message: "a file or folder of that name exists"}},
		{412, "Precondition", "If-Match names another state: nothing was done.", func(o documented) bool { return o.small() && !safe(o.Method) }, changedMeanwhile()},
		{412, "FilePrecondition", "The file is not the one that the condition names: nothing was done.", also(isData, below("/files/")),
			&protocol.Error{Code: protocol.CodePrecondition, Origin: protocol.OriginTarget, Message: "the file is not the one that If-Match names"}},
		{413, "TooLarge", "The body is longer than 1 MiB, of sign-in and account 16 KiB, of query, exec and transaction 16 MiB; or what it asks for is larger than the site allows.",
			func(o documented) bool { return o.json() || o.data }, protocol.Errorf(protocol.CodeTooLarge, "the body is longer than %d bytes", maxAdminBody)},
		{416, "Range", "The range or offset does not fit the file.", does(protocol.OpRead, protocol.OpWrite), agent(protocol.CodeRange, "the range is outside the file or malformed")},
		{422, "KeyReused", "The idempotency key was another request's: nothing was done.", func(o documented) bool { return makes(*o.Operation) },
			relaySays(protocol.CodeInvalid, "idempotency_key", "another request was made with this idempotency key at 2026-11-28T09:30:00Z", "take a new key for what is new")},
		{429, "TooManyAttempts", "Too many attempts failed; nothing was looked at.", proves, &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Message: "too many attempts failed",
			Hint: "wait, then try again; only attempts from where you are count, and wrong codes", RetryAfterMs: 30_000}},
		{429, "MailLimit", "As many e-mails went in the last hour as may; nothing was done.", func(o documented) bool { return makes(*o.Operation) && below("/users")(o) }, &protocol.Error{Code: protocol.CodeRateLimited,
			Origin: protocol.OriginRelay, Rule: client.RuleMailLimit, Message: "the relay refuses: as many e-mails went in the last hour as may, of the workspace or to this person", Hint: "wait, or give the code in another way", RetryAfterMs: 600_000}},
		{429, "BudgetSpent", "A budget of the relay, the workspace, the connection or the site is spent; nothing was done.", isData, &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Rule: "connection.rate",
			Message: "the relay refuses: the budget of the connection, 100 operations a second, is used up", Hint: "try again in 250ms; an admin of the workspace or the relay's operator can raise it", RetryAfterMs: 250}},
		{500, "Internal", "A fault of the relay; its log has more under the request id.", always, relaySays(protocol.CodeInternal, "", "internal error", "")},
		{501, "Unsupported", "Not in this way: HTTP/1.1 is wanted for an upgrade, or the adapter cannot.", func(o documented) bool { return o.data || strings.HasSuffix(o.Path, "/tunnel") },
			&protocol.Error{Code: protocol.CodeUnsupported, Origin: protocol.OriginRelay, Message: "dial wants HTTP/1.1", Hint: "offer only http/1.1 in ALPN"}},
		{502, "Upstream", "The target said no, or it is not known whether it took effect (code `interrupted`).", isData, agent(protocol.CodeUpstream, "the agent's answer makes no sense")},
		{503, "AuditUnavailable", "The audit log cannot be written: nothing was done.", func(o documented) bool { return !o.data }, relaySays(protocol.CodeAuditUnavailable, "",
			"the relay cannot write its audit log, so nothing was changed", "the relay operator should check free space and the relay's log")},
		{503, "Unavailable", "No agent can take it, or the audit log cannot be written: nothing was done.", isData, relaySays(protocol.CodeUnavailable, "", "the agent's tunnel takes no new stream; nothing was sent", "")},
		{504, "Timeout", "It took longer than the site allows.", isData, agent(protocol.CodeTimeout, "the target did not answer in time")},
		{507, "Quota", "There is no room at the site.", does(protocol.OpWrite, protocol.OpMkdir, protocol.OpMove), &protocol.Error{Code: protocol.CodeQuota, Origin: protocol.OriginTarget, Message: "the disk or quota at the site is exhausted"}},
	}
}

// denials are what the operation says to those who may not.
func denials(o documented) map[string]*protocol.Error {
	m := map[string]*protocol.Error{}
	action := authz.Action(o.route.Action)
	switch {
	case o.route.Anonymous:
		m["elsewhere"] = crossSite()
		return m
	case o.route.Session:
		m["token"] = noAccount()
	case action != "":
		nobody := authz.NewPrincipal("usr", "ws", "", authz.Service, nil)
		d := authz.Decide(nobody, action, authz.Scope{Workspace: "ws", Connection: "con"}, authz.At{})
		m["role"] = mayNot(action, d)
		if o.data {
			m["role"] = dispatch.MayNot(protocol.Operation(strings.SplitN(o.OperationID, "-", 2)[0]), d)
		}
	}
	m["address"] = dispatch.OutsideAllowlist(new(directory.Workspace), directory.Callers, netip.MustParseAddr("203.0.113.7"))
	if o.route.Fresh || action != "" && action.Dangerous() {
		m["step-up"] = wantsStepUp()
	}
	return m
}

// describeAnswers gives the operation its headers, the problems that it can answer, and an example for each body.
func (a *API) describeAnswers(o documented, schema *huma.Schema) {
	shared := a.huma.OpenAPI().Components
	if shared.Responses == nil {
		shared.Responses = map[string]*huma.Response{}
	}
	if o.RequestBody != nil {
		if o.RequestBody.Description == "" {
			o.RequestBody.Description = "What is asked for."
		}
		a.exampleOf(o.RequestBody.Content, o)
	}
	for status, r := range o.Responses {
		if status == "default" {
			continue
		}
		if r.Description == "" || r.Description == http.StatusText(o.DefaultStatus) {
			r.Description = map[string]string{"200": "Done.", "201": "Made.", "204": "Done; there is nothing to tell."}[status]
		}
		a.exampleOf(r.Content, o)
		r.Headers = map[string]*huma.Param{protocol.HeaderRequestID: {Ref: "#/components/headers/RequestId"}}
		if m := r.Content["application/json"]; m != nil && (a.tagged(m.Schema) || strings.HasSuffix(o.Path, "/sign-in-policy")) {
			r.Headers["ETag"] = &huma.Param{Description: "Names the state; what If-Match takes. A system role has none", Schema: &huma.Schema{Type: "string"}, Example: `"4k1m"`}
		}
		if makes(*o.Operation) {
			r.Headers["Idempotency-Replayed"] = &huma.Param{Description: "true: this was done before, and is answered again", Schema: &huma.Schema{Type: "string"}}
		}
	}
	answer := func(what string, examples map[string]client.Problem) *huma.Response {
		r := &huma.Response{Description: what, Headers: map[string]*huma.Param{protocol.HeaderRequestID: {Ref: "#/components/headers/RequestId"}},
			Content: map[string]*huma.MediaType{client.ContentProblem: {Schema: schema, Examples: map[string]*huma.Example{}}}}
		for name, p := range examples {
			p.RequestID = exampleID
			r.Content[client.ContentProblem].Examples[name] = &huma.Example{Summary: p.Detail, Value: p}
			if p.RetryAfterMs > 0 {
				r.Headers["Retry-After"] = &huma.Param{Description: "whole seconds until it is worth trying again", Schema: &huma.Schema{Type: "integer"}}
			}
		}
		return r
	}
	byStatus := map[int][]refusal{}
	for _, f := range a.refusals {
		if f.when(o) {
			byStatus[f.status] = append(byStatus[f.status], f)
		}
	}
	for status, l := range byStatus {
		name, what, examples := "", "", map[string]client.Problem{}
		for _, f := range l {
			name, what = name+f.name, strings.TrimSpace(what+" "+f.what)
			examples[f.name] = problemOf(status, f.err)
		}
		if shared.Responses[name] == nil {
			shared.Responses[name] = answer(what, examples)
		}
		o.Responses[strconv.Itoa(status)] = &huma.Response{Ref: "#/components/responses/" + name}
	}
	examples := map[string]client.Problem{}
	for name, e := range denials(o) {
		examples[name] = problemOf(http.StatusForbidden, e)
	}
	o.Responses["403"] = answer("The rules do not allow it; rule and hint say what would.", examples)
	if shared.Responses["Problem"] == nil {
		shared.Responses["Problem"] = answer("Any other problem. Of an HTTP service: its own answer, without the header Fairlead-Origin.",
			map[string]client.Problem{"Canceled": problemOf(499, protocol.Errorf(protocol.CodeCanceled, "the caller went away"))})
	}
	o.Responses["default"] = &huma.Response{Ref: "#/components/responses/Problem"}
}

// problemOf is the body as the relay writes it.
func problemOf(status int, err *protocol.Error) client.Problem {
	e := *err
	if e.Origin == "" {
		e.Origin = protocol.OriginRelay
	}
	p := client.NewProblem(&e)
	if p.Status != status { // that of a code that several statuses share
		p.Status, p.Title = status, http.StatusText(status)
	}
	return p
}

func (a *API) tagged(s *huma.Schema) bool {
	return s.Ref != "" && a.huma.OpenAPI().Components.Schemas.SchemaFromRef(s.Ref).Properties["etag"] != nil
}

// texts of bodies that are no single JSON value.
var bodyTexts = map[string]string{
	protocol.ContentNDJSON: "{\"columns\":[{\"name\":\"id\",\"type\":\"int\",\"database_type\":\"int4\"}]}\n[1]\n{\"end\":{\"rows\":1,\"elapsed_ms\":1}}\n",
	client.ContentCSV:      "id\n1\n", "application/octet-stream": "first,second\n",
	"audit": "{\"seq\":42,\"id\":\"evt_3k5m7q\",\"time\":\"2026-11-28T09:30:00Z\",\"kind\":\"operation\",\"decision\":\"allow\"}\n",
}

func (a *API) exampleOf(content map[string]*huma.MediaType, o documented) {
	for media, m := range content {
		switch text, ok := bodyTexts[media]; {
		case strings.Contains(o.Path, "/audit/") && ok:
			m.Example = bodyTexts["audit"]
		case ok:
			m.Example = text
		default:
			m.Example = a.example(m.Schema)
		}
	}
}
