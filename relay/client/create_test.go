package client_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

// A creation whose line breaks is asked again under the same key; another has another key, and what the relay answered is not asked again.
func TestCreationsAreAskedAgainUnderTheirKey(t *testing.T) {
	var keys []string
	breaks, status := 0, http.StatusCreated
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		if breaks--; breaks >= 0 {
			panic(http.ErrAbortHandler)
		}
		if status != http.StatusCreated {
			clienttest.Fail(w, &protocol.Error{Code: protocol.CodeInterrupted, Message: "no", Origin: protocol.OriginRelay})
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"id":"grp_1","name":"x"}`))
	}))
	defer srv.Close()
	c, err := client.New(client.Config{Relay: srv.URL, CA: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Token: secret.FromString(clienttest.Token)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ask := func(brk int) (sent []string, err error) {
		keys, breaks = nil, brk
		_, err = c.CreateGroup(t.Context(), client.NewGroup{Name: "x"})
		return keys, err
	}
	first, err := ask(2)
	if err != nil || len(first) != 3 || len(first[0]) < 22 || first[0] != first[1] || first[1] != first[2] {
		t.Errorf("%q %v", first, err)
	}
	second, err := ask(0)
	if err != nil || len(second) != 1 || second[0] == first[0] {
		t.Errorf("%q %v", second, err)
	}
	// net/http sends what has a key once more by itself, on a connection that was kept and broke.
	if sent, err := ask(9); client.CodeOf(err) != protocol.CodeInterrupted || len(sent) < 3 || len(sent) > 4 || len(slices.Compact(slices.Clone(sent))) != 1 {
		t.Errorf("%q %v", sent, err)
	}
	status = http.StatusBadGateway
	if sent, err := ask(0); client.CodeOf(err) != protocol.CodeInterrupted || len(sent) != 1 {
		t.Errorf("%q %v", sent, err)
	}
}
