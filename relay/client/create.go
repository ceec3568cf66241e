package client

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// creations is how often a creation is sent when the line breaks, and betweenCreations how long is waited between.
const (
	creations        = 3
	betweenCreations = 300 * time.Millisecond
)

// create asks for something new, under a key of its own, so that it can be asked again when the line broke before the answer: it is
// made once. What the relay itself answers is not asked again.
func (c *Client) create(ctx context.Context, escaped string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, c.conf.Timeout)
	defer cancel()
	o := *c
	o.key = rand.Text()
	for n := 1; ; n++ {
		err := o.doLong(ctx, http.MethodPost, escaped, nil, in, out)
		var e *protocol.Error
		if n == creations || !errors.As(err, &e) || e.Origin != "" || e.Code != protocol.CodeInterrupted {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(betweenCreations):
		}
	}
}
