package client

import (
	"context"
	"net/http"
)

// Limits are what a workspace or a connection may use of the relay; 0 in a field is no limit.
type Limits struct {
	Rate       int64 `json:"rate,omitempty"`       // operations begun a second
	Burst      int64 `json:"burst,omitempty"`      // operations begun at once; 0: as many as rate
	Concurrent int64 `json:"concurrent,omitempty"` // operations and open dials at a time
	Egress     int64 `json:"egress,omitempty"`     // bytes a second towards callers: what is more waits, and is not cut
}

// Budget is the limits of a workspace or connection, and what became of them since the relay started.
type Budget struct {
	Set     Limits `json:"set"`      // by the workspace's admins
	InForce Limits `json:"in_force"` // of a workspace: the smaller of these and the relay's own
	Running int64  `json:"running"`  // operations and open dials now
	// These are counted only while there are limits.
	Begun             int64  `json:"begun"`
	RefusedRate       int64  `json:"refused_rate"`
	RefusedConcurrent int64  `json:"refused_concurrent"`
	EgressBytes       int64  `json:"egress_bytes"`
	EgressWaitedMs    int64  `json:"egress_waited_ms"` // of all streams together
	ETag              string `json:"etag,omitempty"`   // of its state; what If-Match takes
}

func (c *Client) budgetPath(connection string) string {
	if connection == "" {
		return c.ws("budget")
	}
	return c.conn(connection, "budget")
}

// Budget tells of the budget of a connection, or of the workspace for "".
func (c *Client) Budget(ctx context.Context, connection string) (Budget, error) {
	var b Budget
	return b, c.do(ctx, http.MethodGet, c.budgetPath(connection), nil, nil, &b)
}

// SetBudget replaces the limits of a connection, or of the workspace for "". What runs goes on, by the new limits.
func (c *Client) SetBudget(ctx context.Context, connection string, l Limits) (Budget, error) {
	var b Budget
	return b, c.do(ctx, http.MethodPut, c.budgetPath(connection), nil, l, &b)
}
