package api

import (
	"context"
	"time"

	"github.com/fairleadhq/fairlead/internal/budget"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

func (a *API) budgetRoutes() {
	const ofWorkspace, ofConnection = "/workspaces/{workspace}/budget", "/workspaces/{workspace}/connections/{name}/budget"
	route(a, "GET", ofWorkspace, authz.BudgetsRead, "The workspace's budget, and what became of it", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.Budget], error) {
		return a.budget(v.workspace.ID, v.workspace.Budget, v.workspace.BudgetETag()), nil
	})
	route(a, "GET", "/workspaces/{workspace}/quota", authz.BudgetsRead, "How much the workspace has of what the operator bounds", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Quota]], error) {
		l, most := client.List[client.Quota]{Items: []client.Quota{}}, a.cfg.Directory.Quota(v.workspace)
		for _, kind := range directory.Quotas {
			l.Items = append(l.Items, client.Quota{Name: kind, Used: v.workspace.Uses(kind, time.Now()), Most: most.Of(kind)})
		}
		return &out[client.List[client.Quota]]{l}, nil
	})
	route(a, "PUT", ofWorkspace, authz.BudgetsEdit, "Replace the workspace's limits; what runs goes on, by the new ones", 200, func(ctx context.Context, v *visit, i *in[client.Limits]) (*out[client.Budget], error) {
		return a.setBudget(ctx, v, nil, i.Body)
	})
	route(a, "GET", ofConnection, authz.BudgetsRead, "A connection's budget, and what became of it", 200, func(_ context.Context, v *visit, i *inName) (*out[client.Budget], error) {
		c, err := v.workspace.Connection(i.Name)
		if err != nil {
			return nil, err
		}
		return a.budget(c.ID, c.Budget, c.BudgetETag()), nil
	})
	route(a, "PUT", ofConnection, authz.BudgetsEdit, "Replace a connection's limits; what runs goes on, by the new ones", 200, func(ctx context.Context, v *visit, i *inNamed[client.Limits]) (*out[client.Budget], error) {
		c, err := v.workspace.Connection(i.Name)
		if err != nil {
			return nil, err
		}
		return a.setBudget(ctx, v, c, i.Body)
	})
}

// setBudget answers when the limits are in force. c is nil for the workspace's own.
func (a *API) setBudget(ctx context.Context, v *visit, c *directory.Connection, l client.Limits) (*out[client.Budget], error) {
	limits := budgetOf(l)
	scope, connection := v.workspace.ID, ""
	if c != nil {
		scope, connection = c.ID, c.ID
	}
	if err := a.cfg.Directory.SetBudget(ctx, v.workspace.ID, connection, limits); err != nil {
		return nil, err
	}
	snap := a.cfg.Directory.Snapshot()
	a.cfg.Dispatch.Sync(snap)
	now, err := snap.Workspace(v.workspace.ID)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return a.budget(scope, now.Budget, now.BudgetETag()), nil
	}
	if c, err = now.Connection(c.ID); err != nil {
		return nil, err
	}
	return a.budget(scope, c.Budget, c.BudgetETag()), nil
}

func (a *API) budget(scope string, set budget.Limits, etag string) *out[client.Budget] {
	in, c := a.cfg.Dispatch.Use(scope)
	return &out[client.Budget]{client.Budget{Set: limits(set), InForce: limits(in), Running: c.Running, Begun: c.Begun, RefusedRate: c.RefusedRate,
		RefusedConcurrent: c.RefusedConcurrent, EgressBytes: c.Bytes, EgressWaitedMs: c.Waited.Milliseconds(), ETag: etag}}
}

func budgetOf(l client.Limits) budget.Limits {
	return budget.Limits{Rate: l.Rate, Burst: l.Burst, Concurrent: l.Concurrent, Egress: l.Egress}
}

func limits(l budget.Limits) client.Limits {
	return client.Limits{Rate: l.Rate, Burst: l.Burst, Concurrent: l.Concurrent, Egress: l.Egress}
}
