package main

import (
	"context"
	"strconv"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type quotaCommand struct{ cli.Output }

func (*quotaCommand) Examples() []string { return []string{"fairlead quota"} }

func (k *quotaCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Quotas(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, l, []string{"of", "used", "most"}, func(q client.Quota) []string {
		most := "no bound"
		if q.Most > 0 {
			most = strconv.Itoa(q.Most)
		}
		return []string{q.Name, strconv.Itoa(q.Used), most}
	})
}
