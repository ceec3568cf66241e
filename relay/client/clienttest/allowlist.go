package clienttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// allowlistRoutes are those of the lists of addresses. The caller comes from 127.0.0.1.
func (r *Relay) allowlistRoutes(handle func(pattern string, h func(w http.ResponseWriter, q *http.Request))) {
	now := func() client.Allowlist {
		return client.Allowlist{Prefixes: r.Allowlist, Lists: r.Allowlists, ETag: ETag(fmt.Append(nil, r.Allowlist, r.Allowlists))}
	}
	handle("GET /allowlist", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, now()) })
	handle("PUT /allowlist", func(w http.ResponseWriter, q *http.Request) {
		var s client.SetAllowlist
		_ = json.NewDecoder(q.Body).Decode(&s)
		if r.BeforeAllowlist != nil {
			r.BeforeAllowlist()
		}
		shut := s.For != "agents" && s.For != "gateways" && !slices.Contains(s.Prefixes, "127.0.0.0/8")
		switch m := q.Header.Get("If-Match"); {
		case m != "" && m != now().ETag:
			Fail(w, &protocol.Error{Code: protocol.CodePrecondition, Message: "the allowlist is another by now", Origin: protocol.OriginRelay})
			return
		case s.DryRun:
			cut := client.AllowlistCut{You: shut, Sessions: []client.AllowlistCutOff{}, Tokens: []client.AllowlistCutOff{}, Agents: []client.AllowlistCutOff{}}
			if cut.You {
				cut.Sessions = append(cut.Sessions, client.AllowlistCutOff{ID: "ses_1", Name: "evil\x1b[2Jname", Address: "127.0.0.9"})
				cut.Tokens = append(cut.Tokens, client.AllowlistCutOff{ID: "tok_1", Name: "admin", Address: "127.0.0.1"})
				cut.Agents = append(cut.Agents, client.AllowlistCutOff{ID: "agt_1", Name: "plant"})
				cut.More = map[string]int{"tokens": 7}
			}
			a := now()
			a.WouldCut = &cut
			answer(w, 200, a)
			return
		case !s.Confirm && shut:
			Fail(w, &protocol.Error{Code: protocol.CodeConflict, Message: "this list would shut you out (127.0.0.1)", Origin: protocol.OriginRelay, Hint: "add your address, or confirm"})
			return
		case s.Unset:
			delete(r.Allowlists, s.For)
		case s.For != "":
			r.Allowlists[s.For] = s.Prefixes
		default:
			r.Allowlist = s.Prefixes
		}
		answer(w, 200, now())
	})
}
