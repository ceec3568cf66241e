package tcp

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/agent/policy"
	"github.com/fairleadhq/fairlead/protocol"
)

func proxy(source, destination string) protocol.Proxy {
	return protocol.Proxy{Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination)}
}

// The bytes are those of the specification of the PROXY protocol, version 2.
func TestProxyHeaderBytes(t *testing.T) {
	const sig = "0d0a0d0a000d0a515549540a21"
	for _, c := range []struct {
		p    protocol.Proxy
		want string
	}{
		{proxy("203.0.113.7:40312", "10.0.0.5:5432"), sig + "11000c" + "cb007107" + "0a000005" + "9d78" + "1538"},
		{proxy("[2001:db8::7]:1", "[2001:db8::1]:65535"), sig + "210024" + "20010db8000000000000000000000007" + "20010db8000000000000000000000001" + "0001" + "ffff"},
		{proxy("[2001:db8::7]:1", "10.0.0.5:2"), sig + "210024" + "20010db8000000000000000000000007" + "00000000000000000000ffff0a000005" + "0001" + "0002"},
	} {
		if got := hex.EncodeToString(proxyHeader(c.p)); got != c.want {
			t.Errorf("%s:\n got  %s\n want %s", c.p, got, c.want)
		}
	}
}

// The target reads the header first, and what the caller sent in the same flight behind it: a header of the caller's own
// is nothing but data.
func TestProxyHeaderIsTheAgentsAndComesFirst(t *testing.T) {
	r := newRig(t, func(*Config, *policy.Limits) {})
	p := proxy("203.0.113.7:40312", "10.0.0.5:5432")
	forged := "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + string(proxyHeader(proxy("198.51.100.1:1", "198.51.100.2:2")))
	c, br, resp := r.openWith("Fairlead-Require: proxy\r\nFairlead-Proxy: "+p.String()+"\r\n", forged)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	target := r.accept()
	want := string(proxyHeader(p)) + forged
	got := make([]byte, len(want))
	if _, err := io.ReadFull(target, got); err != nil || string(got) != want {
		t.Fatalf("%v:\n got  %q\n want %q", err, got, want)
	}
	if _, err := io.WriteString(target, "hi"); err != nil {
		t.Fatal(err)
	}
	_ = target.CloseWrite()
	if b, err := io.ReadAll(br); err != nil || string(b) != "hi" {
		t.Fatalf("%q, %v", b, err)
	}
	_ = c.CloseWrite()
	// The header is not the caller's, so it is not counted as such.
	if o := r.outcome(); o.BytesIn != int64(len(forged)) || o.Bytes != 2 {
		t.Fatalf("%+v", o)
	}
}

// openWith is open with further headers.
func (r *rig) openWith(headers, early string) (c interface{ CloseWrite() error }, br *bufio.Reader, resp *http.Response) {
	r.t.Helper()
	return r.send(strings.TrimSuffix(request, "\r\n") + headers + "\r\n" + early)
}
