package mtls_test

import (
	"crypto/tls"
	"testing"

	"github.com/fairleadhq/fairlead/internal/mtls"
)

// Every setting that this package makes asks for full records from the first byte; bulk goes through the agent's, the tunnel's and the WebSocket's.
func TestRecordsAreNotSizedDynamically(t *testing.T) {
	s := newSite(t)
	for name, c := range map[string]*tls.Config{
		"agent":           s.client(t, s.agent),
		"tunnel":          s.server(t, s.relay),
		"outer WebSocket": mtls.CoatTLS("relay.test"),
		"enrolling agent": mtls.EnrollClientTLS(make([]byte, 32)),
	} {
		if !c.DynamicRecordSizingDisabled {
			t.Errorf("%s: DynamicRecordSizingDisabled is not set", name)
		}
	}
}
