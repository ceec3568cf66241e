package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/client/clienttest"
)

func TestConnectionsGateway(t *testing.T) {
	r := setup(t)
	ca := filepath.Join(t.TempDir(), "clients.pem")
	if err := os.WriteFile(ca, []byte("PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	res := run("connections", "gateway", "sales", "10.0.0.5:15432", "--allow", "192.0.2.0/24", "--allow", "2001:db8::/32")
	res.want(t, 0, "", "gateway at 10.0.0.5:15432: open")
	if !strings.Contains(res.errs, "bytes pass as they are") || strings.Contains(res.errs, "nobody") {
		t.Error(res.errs)
	}
	if body := r.LastBody(); body != `{"address":"10.0.0.5:15432","allow":["192.0.2.0/24","2001:db8::/32"]}` {
		t.Error(body)
	}
	run("connections", "list").want(t, 0, "10.0.0.5:15432", "")
	run("connections", "show", "sales").want(t, 0, "192.0.2.0/24 2001:db8::/32", "")
	// An empty list admits nobody, and that is said.
	run("connections", "gateway", "sales", "[2001:db8::5]:15432", "--tls", "mutual", "--client-ca", ca, "--proxy-protocol").want(t, 0, "", "it admits nobody")
	if body := r.LastBody(); body != `{"address":"[2001:db8::5]:15432","tls":"mutual","client_ca":"PEM","proxy_protocol":true}` {
		t.Error(body)
	}
	var made client.Connection
	if err := json.Unmarshal([]byte(run("connections", "gateway", "sales", "10.0.0.5:15433", "--tls", "server", "-o", "json").out), &made); err != nil || made.Gateway == nil || made.Gateway.TLS != "server" {
		t.Errorf("%+v, %v", made, err)
	}
	r.Lock()
	r.Connections[0].Gateway.State, r.Connections[0].Gateway.Error = client.GatewayFailed, "it is in use on the relay's machine"
	r.Unlock()
	run("connections", "list").want(t, 0, "10.0.0.5:15433 (failed: it is in use on the relay's machine)", "")
	run("connections", "gateway", "sales", clienttest.InUse).want(t, 73, "", "it is in use")
	run("connections", "gateway", "sales", "off").want(t, 0, "", "is off")
	run("connections", "gateway", "sales", "off").want(t, 66, "", "no such gateway")
	run("connections", "gateway", "nothing", "off").want(t, 66, "", "no such connection")

	run("connections", "create", "bi", "--group", "default", "--profile", "sales", "--gateway", "10.0.0.5:15434", "--gateway-allow", "192.0.2.0/24", "--gateway-tls", "server").want(t, 0, "", "gateway at 10.0.0.5:15434: open")
	if body := r.LastBody(); body != `{"name":"bi","group":"default","profile":"sales","gateway":{"address":"10.0.0.5:15434","tls":"server","allow":["192.0.2.0/24"]}}` {
		t.Error(body)
	}
	before := len(r.Bodies)
	for _, bad := range []struct{ args, says string }{{"sales", "<address>"}, {"sales 15432", "is not ADDRESS:PORT"}, {"sales relay.example:15432", "is not ADDRESS:PORT"}, {"sales 10.0.0.5:0", "is not ADDRESS:PORT"},
		{"sales :15432", "is not ADDRESS:PORT"}, {"sales 10.0.0.5:1 --tls on", "none, server or mutual"}, {"sales 10.0.0.5:1 --tls mutual", "belong together"},
		{"sales 10.0.0.5:1 --client-ca " + ca, "belong together"}, {"sales off --allow 192.0.2.0/24", "no further flag"}} {
		run(append([]string{"connections", "gateway"}, strings.Fields(bad.args)...)...).want(t, 64, "", bad.says)
	}
	run("connections", "create", "c", "--group", "default", "--profile", "sales", "--gateway-allow", "192.0.2.0/24").want(t, 64, "", "want an address and port")
	if len(r.Bodies) != before {
		t.Error("a malformed command asked the relay")
	}
}
