package uplink

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairleadhq/fairlead/internal/tunnel"
	"github.com/fairleadhq/fairlead/protocol"
)

// A relay that was taken over must not be able to keep its agents away for ever by asking for patience.
func TestRelayCannotSendTheAgentAwayForever(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		dials := make(chan struct{}, 8)
		u := New(Config{Addresses: []string{"relay:1"}, Logger: slog.New(slog.DiscardHandler), Dial: func(context.Context, string) (tunnel.Tunnel, error) {
			dials <- struct{}{}
			return nil, &retryError{protocol.Errorf(protocol.CodeUnavailable, "go away"), 1000 * time.Hour}
		}})
		done := make(chan struct{})
		go func() { defer close(done); _ = u.Run(ctx) }()
		<-dials
		select {
		case <-dials:
		case <-time.After(maxRetry + 2*time.Minute):
			t.Error("the agent stays away")
		}
		cancel()
		<-done
	})
}
