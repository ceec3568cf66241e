package plan

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// run is a plan under way.
type run struct {
	c     *client.Client
	teams map[string]client.Team // as they are after steps of this run
	tags  map[string]string      // of connections, by id, after steps of this run
	codes []client.UserCode
}

// Result is what came of a plan.
type Result struct {
	Done   []Step `json:"done"`
	Failed *Step  `json:"failed,omitempty"`
	Open   []Step `json:"open"` // not begun
	// Codes set the passwords of users that were made. They are shown this once, also when a later step failed.
	Codes []client.UserCode `json:"codes,omitempty"`
}

// Apply takes the steps in their order, and ends at the first that fails, with its error. done is called after each that went well.
func (p *Plan) Apply(ctx context.Context, c *client.Client, done func(Step)) (*Result, error) {
	r := &run{c: c, teams: map[string]client.Team{}, tags: map[string]string{}}
	out := &Result{Done: []Step{}, Open: []Step{}}
	for i, s := range p.Steps {
		err := s.do(ctx, r)
		out.Codes = r.codes
		if err != nil {
			out.Failed, out.Open = &p.Steps[i], append(out.Open, p.Steps[i+1:]...)
			return out, failed(s, err)
		}
		out.Done = append(out.Done, s)
		done(s)
	}
	return out, nil
}

// failed says which step it was, and what to do about somebody who was faster.
func failed(s Step, err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.Code == protocol.CodePrecondition {
		said := *e
		said.Hint = "somebody changed it since the plan was made: look at what is new, and run the same command again"
		err = &said
	}
	return fmt.Errorf("%s: %w", s, err)
}
