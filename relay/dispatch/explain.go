package dispatch

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// explainTime bounds how long an agent has for its verdict.
const explainTime = 10 * time.Second

// Explain asks one connected agent of the connection's group what it would decide about an operation, which is not done. r holds the
// operation and its parameters, its id and who asks; body is a database operation's. The agent records that it was asked. Which one
// was is given with an error, too, when there is one.
func (d *Dispatcher) Explain(ctx context.Context, conn *directory.Connection, r protocol.Request, body io.Reader) (v protocol.Verdict, agent string, err error) {
	if err := d.aim(&r, conn); err != nil {
		return v, "", err
	}
	live, err := d.Hub.Pick(conn.Group, conn.Profile)
	if err != nil {
		return v, "", err
	}
	agent = live.Agent()
	if !slices.Contains(live.Info().Hello.Constraints, protocol.RequireExplain) { // it would refuse, if it keeps to the protocol
		return v, agent, &protocol.Error{Code: protocol.CodeUnsupported, Origin: protocol.OriginRelay, Message: "the connected agent is of a version that cannot be asked from here",
			Hint: "update it, or ask there: `fairlead-agent explain`"}
	}
	lease, refusal := budget.Begin(d.budgetsOf(conn)...)
	if refusal != nil {
		return v, agent, refusal.Problem(protocol.OriginRelay)
	}
	defer lease.End()
	ctx, cancel := context.WithTimeout(ctx, explainTime)
	defer cancel()
	// No Remaining: it would narrow the time limit that the verdict tells.
	r.Connection, r.Require = conn.ID, []string{protocol.RequireExplain}
	req, err := r.HTTP(ctx, body)
	if err != nil {
		return v, agent, err
	}
	resp, err := live.Do(req)
	if err != nil {
		return v, agent, err
	}
	defer resp.Body.Close()
	if err := agentError(resp); err != nil {
		return v, agent, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, protocol.MaxVerdictBytes+1))
	if err != nil || resp.StatusCode != http.StatusOK || len(b) > protocol.MaxVerdictBytes || json.Unmarshal(b, &v) != nil || v.Allow != (v.Code == "") ||
		v.Code != "" && !slices.Contains(protocol.Codes, v.Code) {
		return protocol.Verdict{}, agent, errSenseless
	}
	return v, agent, nil
}
