package dispatch

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
)

func response(header http.Header, body string) *http.Response {
	return &http.Response{StatusCode: 200, Header: header, Trailer: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// An agent speaks for itself and its target, not for the relay, and not in codes that nobody knows.
func TestAgentsErrorIsJudged(t *testing.T) {
	for body, want := range map[string]protocol.Error{
		`{"code":"denied","message":"no","origin":"relay","request_id":"req_forged"}`: {Code: protocol.CodeDenied, Origin: protocol.OriginAgent},
		`{"code":"denied","message":"no","origin":"<b>"}`:                             {Code: protocol.CodeDenied, Origin: protocol.OriginAgent},
		`{"code":"upstream","message":"no","origin":"target"}`:                        {Code: protocol.CodeUpstream, Origin: protocol.OriginTarget},
		`{"code":"made_up","message":"no"}`:                                           {Code: protocol.CodeUpstream, Origin: protocol.OriginAgent},
		`{"message":"no"}`:                                                            {Code: protocol.CodeUpstream, Origin: protocol.OriginAgent},
		`no JSON`:                                                                     {Code: protocol.CodeUpstream, Origin: protocol.OriginAgent},
	} {
		var got *protocol.Error
		err := agentError(response(http.Header{protocol.HeaderOrigin: {"agent"}}, body))
		if !errors.As(err, &got) || got.Code != want.Code || got.Origin != want.Origin || got.RequestID != "" {
			t.Errorf("%s: %+v", body, got)
		}
	}
	if err := agentError(response(http.Header{}, `{"code":"denied"}`)); err != nil {
		t.Errorf("an answer was taken for an error: %v", err)
	}
}

func TestAgentsOutcomeIsJudged(t *testing.T) {
	for text, want := range map[string]*protocol.Outcome{
		"":  nil,
		"x": nil,
		`{"rows":` + strings.Repeat("1", 5000) + `}`: nil,
		`{"code":"timeout","rows":3}`:                {Code: protocol.CodeTimeout, Rows: 3},
		`{"code":"made up","rows":-3,"bytes_in":-1}`: {Code: protocol.CodeUpstream},
	} {
		r := response(http.Header{}, "")
		r.Trailer.Set(protocol.TrailerOutcome, text)
		got := outcome(r)
		if (got == nil) != (want == nil) || got != nil && *got != *want {
			t.Errorf("%.40s: %+v", text, got)
		}
	}
}

func TestForwardedAnswerKeepsTheHopAndTheRelaysOwn(t *testing.T) {
	h := http.Header{"Connection": {"close, X-Hop"}, "X-Hop": {"1"}, "Keep-Alive": {"timeout=5"}, "Upgrade": {"h2c"}, "Proxy-Authenticate": {"Basic"}, "Set-Cookie": {"a=b"},
		"Content-Security-Policy": {"default-src *"}, "Fairlead-Origin": {"relay"}, "X-Own": {"kept", "twice"}, "Www-Authenticate": {"Basic"}}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	if _, err := copyAnswer(t.Context(), w, response(h, "body"), true, budget.Lease{}); err != nil {
		t.Fatal(err)
	}
	got := w.Header()
	if len(got["X-Own"]) != 2 || got.Get("Www-Authenticate") == "" || got.Get("Content-Security-Policy") != "default-src 'none'" || w.Body.String() != "body" {
		t.Errorf("%v %q", got, w.Body)
	}
	for _, k := range []string{"Connection", "X-Hop", "Keep-Alive", "Upgrade", "Proxy-Authenticate", "Set-Cookie", "Fairlead-Origin"} {
		if got.Get(k) != "" {
			t.Errorf("%s passed", k)
		}
	}
}
