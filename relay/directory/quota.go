package directory

import (
	"fmt"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
)

// Quota bounds what each workspace may have; 0 is no bound beside those that hold everywhere.
type Quota struct {
	Agents, Connections, Users, Services, Tokens int
}

// What a quota is of.
const (
	QuotaAgents      = "agents"
	QuotaConnections = "connections"
	QuotaUsers       = "users"
	QuotaServices    = "service_accounts"
	QuotaTokens      = "tokens" // that are neither revoked nor expired
)

// Quotas lists what there are quotas of, in the order of their names.
var Quotas = []string{QuotaAgents, QuotaConnections, QuotaServices, QuotaTokens, QuotaUsers}

// Of gives the bound of a kind; 0 for none.
func (q Quota) Of(kind string) int {
	return map[string]int{QuotaAgents: q.Agents, QuotaConnections: q.Connections, QuotaUsers: q.Users, QuotaServices: q.Services, QuotaTokens: q.Tokens}[kind]
}

// Quota is what a workspace may have.
func (d *Directory) Quota(w *Workspace) Quota {
	if q, ok := d.conf.Quotas[w.Name]; ok {
		return q
	}
	return d.conf.Quota
}

// Uses counts what the workspace has of a kind.
func (w *Workspace) Uses(kind string, now time.Time) (n int) {
	switch kind {
	case QuotaAgents:
		return len(w.Agents)
	case QuotaConnections:
		return len(w.Connections)
	case QuotaUsers:
		return len(w.people)
	case QuotaServices:
		return len(w.Services())
	case QuotaTokens:
		for _, t := range w.Tokens {
			if t.Revoked.IsZero() && now.UnixMilli() < t.expires {
				n++
			}
		}
	}
	return n
}

// within refuses (too_large) a transaction that makes more of a kind than the workspace may have. It is called after the row is
// written, so that of many at once no more get in than there is room for. What is over a quota that was lowered stays.
func (d *Directory) within(tx *store.Tx, workspace, kind string) error {
	most := d.Quota(d.Snapshot().before(workspace)).Of(kind)
	if most == 0 {
		return nil
	}
	n, err := tx.CountOf(workspace, kind, toMs(now()))
	if err != nil || n <= most {
		return err
	}
	name := map[string]string{QuotaServices: "service accounts", QuotaTokens: "live API tokens"}[kind]
	if name == "" {
		name = kind
	}
	return &protocol.Error{Code: protocol.CodeTooLarge, Rule: "quota." + kind, Message: fmt.Sprintf("the workspace may have no more than %d %s", most, name),
		Hint: "remove those that nobody uses (fairlead quota shows what there is), or ask the relay's operator, who sets quota in relay.yaml"}
}
