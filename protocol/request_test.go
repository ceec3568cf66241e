package protocol_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/fairleadhq/fairlead/protocol"
)

// wire sends a request through its bytes, as a peer would see it.
func wire(t interface{ Fatal(...any) }, r *protocol.Request) *http.Request {
	req, err := r.HTTP(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := req.Write(&b); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadRequest(bufio.NewReader(&b))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRequestSurvivesTheWire(t *testing.T) {
	for _, r := range []protocol.Request{
		{Kind: protocol.KindDatabase, Profile: "sales", Operation: protocol.OpQuery, ID: "req_1", Remaining: 1500 * time.Millisecond},
		{Kind: protocol.KindDatabase, Profile: "sales", Operation: protocol.OpQuery, Limits: protocol.Limits{MaxRows: 7, MaskColumns: []string{"ssn"}}, Require: []string{"limits"}},
		{Kind: protocol.KindDatabase, Profile: "sales", Operation: protocol.OpSchema, Principal: "usr_1", Connection: "con_2"},
		{Kind: protocol.KindDatabase, Profile: "sales", Operation: protocol.OpDial},
		{Kind: protocol.KindFiles, Profile: "hr", Operation: protocol.OpList, Path: "a b/ü%2f", Recursive: true, Glob: "**/*.csv", Cursor: "x", PageSize: 10},
		{Kind: protocol.KindFiles, Profile: "hr", Operation: protocol.OpStat, Upload: strings.Repeat("0a", 16)},
		{Kind: protocol.KindFiles, Profile: "hr", Operation: protocol.OpWrite, Path: "x", Upload: strings.Repeat("f", 32), Offset: 1 << 40, Partial: true},
		{Kind: protocol.KindFiles, Profile: "hr", Operation: protocol.OpMove, Path: "x", To: "y", Overwrite: true},
		{Kind: protocol.KindFiles, Profile: "hr", Operation: protocol.OpRead, Path: "x", Header: http.Header{"Range": {"bytes=1-"}}},
		{Kind: protocol.KindHTTP, Profile: "crm", Operation: protocol.OpRequest, Method: "PATCH", Target: "/api/%2e?x=1&y=%zz"},
		{Kind: protocol.KindTCP, Profile: "-", Operation: protocol.OpDial, Host: "db.corp", Port: 5432},
		{Kind: protocol.KindTCP, Profile: "erp", Operation: protocol.OpDial, Require: []string{"proxy"},
			Proxy: protocol.Proxy{Source: netip.MustParseAddrPort("[2001:db8::7]:40312"), Destination: netip.MustParseAddrPort("10.0.0.5:15432")}},
	} {
		if r.Header == nil {
			r.Header = http.Header{}
		}
		got, err := protocol.ParseRequest(wire(t, &r))
		if err != nil {
			t.Errorf("%s: %v", r.Operation, err)
			continue
		}
		got.Header.Del("User-Agent")
		got.Header.Del("Content-Length")
		if !reflect.DeepEqual(&r, got) {
			t.Errorf("%s:\n sent %+v\n got  %+v", r.Operation, &r, got)
		}
	}
}

func TestMalformedRequestIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, line, header string
		want               protocol.Code
	}{
		{"unknown operation", "POST /v1/database/sales/shell", "", protocol.CodeUnsupported},
		{"operation of another kind", "POST /v1/files/hr/query", "", protocol.CodeUnsupported},
		{"D22 update, exec or plugin", "POST /v1/agent/self/update", "", protocol.CodeUnsupported},
		{"wrong method", "GET /v1/database/sales/query", "", protocol.CodeInvalid},
		{"short path", "POST /v1/database/query", "", protocol.CodeNotFound},
		{"long path", "POST /v1/database/sales/query/x", "", protocol.CodeNotFound},
		{"double slash", "POST //v1/database/sales/query", "", protocol.CodeNotFound},
		{"escaped slash", "POST /v1/database/sa%2fles/query", "", protocol.CodeInvalid},
		{"escaped dots", "POST /v1/database/%2e%2e/query", "", protocol.CodeInvalid},
		{"profile of dots", "POST /v1/database/../query", "", protocol.CodeInvalid},
		{"profile too long", "POST /v1/database/" + strings.Repeat("a", 64) + "/query", "", protocol.CodeInvalid},
		{"no profile where one is wanted", "POST /v1/database/-/query", "", protocol.CodeInvalid},
		{"unknown parameter", "POST /v1/database/sales/query?sudo=1", "", protocol.CodeUnsupported},
		{"parameter twice", "GET /v1/files/hr/list?path=a&path=b", "", protocol.CodeInvalid},
		{"parameter of another operation", "GET /v1/files/hr/read?path=a&to=b", "", protocol.CodeInvalid},
		{"A2 port 0", "POST /v1/tcp/-/dial?host=h&port=0", "dial", protocol.CodeInvalid},
		{"A2 port 65536", "POST /v1/tcp/-/dial?host=h&port=65536", "dial", protocol.CodeInvalid},
		{"A2 port 05432", "POST /v1/tcp/-/dial?host=h&port=05432", "dial", protocol.CodeInvalid},
		{"A2 port +5432", "POST /v1/tcp/-/dial?host=h&port=%2b5432", "dial", protocol.CodeInvalid},
		{"A2 port with newline", "POST /v1/tcp/-/dial?host=h&port=5432%0a", "dial", protocol.CodeInvalid},
		{"dial without upgrade", "POST /v1/tcp/-/dial?host=h&port=1", "", protocol.CodeInvalid},
		{"dial with profile and host", "POST /v1/tcp/erp/dial?host=h&port=1", "dial", protocol.CodeInvalid},
		{"dial without target", "POST /v1/tcp/-/dial", "dial", protocol.CodeInvalid},
		{"upload id not hex", "PUT /v1/files/hr/write?path=a&upload=../../etc/passwd", "", protocol.CodeInvalid},
		{"offset without upload", "PUT /v1/files/hr/write?path=a&offset=5", "", protocol.CodeInvalid},
		{"negative offset", "PUT /v1/files/hr/write?path=a&offset=-5", "", protocol.CodeInvalid},
		{"unknown constraint", "POST /v1/database/sales/query", "Fairlead-Require: limits,two_person", protocol.CodeUnsupported},
		{"unknown limit", "POST /v1/database/sales/query", `Fairlead-Limits: {"unmask":["ssn"]}`, protocol.CodeInvalid},
		{"negative limit", "POST /v1/database/sales/query", `Fairlead-Limits: {"max_rows":-1}`, protocol.CodeInvalid},
		{"trailing limit", "POST /v1/database/sales/query", `Fairlead-Limits: {} {}`, protocol.CodeInvalid},
		{"deadline as clock", "POST /v1/database/sales/query", "Fairlead-Deadline-Ms: 2026-01-01", protocol.CodeInvalid},
		{"header twice", "POST /v1/database/sales/query", "Fairlead-Request-Id: a\r\nFairlead-Request-Id: b", protocol.CodeInvalid},
		{"id with a space", "POST /v1/database/sales/query", "Fairlead-Request-Id: a b", protocol.CodeInvalid},
		{"request without target", "POST /v1/http/crm/request?method=GET", "", protocol.CodeInvalid},
		{"request with absolute target", "POST /v1/http/crm/request?method=GET&target=http://evil/", "", protocol.CodeInvalid},
		{"proxy without its constraint", "POST /v1/tcp/erp/dial", proxied("Fairlead-Proxy: 192.0.2.1:5 192.0.2.2:6"), protocol.CodeInvalid},
		{"constraint without its proxy", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy"), protocol.CodeInvalid},
		{"proxy of a query", "POST /v1/database/sales/query", "Fairlead-Require: proxy\r\nFairlead-Proxy: 192.0.2.1:5 192.0.2.2:6", protocol.CodeInvalid},
		{"proxy with one end", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: 192.0.2.1:5"), protocol.CodeInvalid},
		{"proxy with three ends", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: 192.0.2.1:5 192.0.2.2:6 192.0.2.3:7"), protocol.CodeInvalid},
		{"proxy with a name", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: localhost:5 192.0.2.2:6"), protocol.CodeInvalid},
		{"proxy with port 0", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: 192.0.2.1:0 192.0.2.2:6"), protocol.CodeInvalid},
		{"proxy in IPv6 form of IPv4", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: [::ffff:192.0.2.1]:5 192.0.2.2:6"), protocol.CodeInvalid},
		{"proxy with a zone", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: [fe80::1%25eth0]:5 192.0.2.2:6"), protocol.CodeInvalid},
		{"proxy in another form", "POST /v1/tcp/erp/dial", proxied("Fairlead-Require: proxy\r\nFairlead-Proxy: [2001:DB8::1]:5 192.0.2.2:6"), protocol.CodeInvalid},
		{"huge parameter", "GET /v1/files/hr/read?path=" + strings.Repeat("a", protocol.MaxParamBytes+1), "", protocol.CodeTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := c.header
			if h == "dial" {
				h = "Connection: Upgrade\r\nUpgrade: fairlead-dial"
			}
			if h != "" {
				h += "\r\n"
			}
			req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(c.line + " HTTP/1.1\r\nHost: agent\r\n" + h + "\r\n")))
			if err != nil {
				t.Fatal(err)
			}
			_, err = protocol.ParseRequest(req)
			var e *protocol.Error
			if !errors.As(err, &e) || e.Code != c.want {
				t.Fatalf("got %v, want code %s", err, c.want)
			}
		})
	}
}

func proxied(header string) string {
	return "Connection: Upgrade\r\nUpgrade: fairlead-dial\r\n" + header
}

func TestEveryCodeIsMapped(t *testing.T) {
	for _, c := range protocol.Codes {
		if c != protocol.CodeInternal && (c.Status() == 500 || c.ExitCode() == 70) {
			t.Errorf("code %s has no status or exit code of its own", c)
		}
	}
	if protocol.Code("later").Status() != 500 {
		t.Error("an unknown code must be an internal error")
	}
}

func TestInnerErrorTextStaysInside(t *testing.T) {
	err := protocol.AsError(errors.New("password=hunter2"))
	if err.Code != protocol.CodeInternal || strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("inner text leaves: %v", err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add("POST", "/v1/database/sales/query", "", "", "")
	f.Add("GET", "/v1/files/hr/list", "path=a&recursive=true", "Fairlead-Limits", `{"max_rows":3}`)
	f.Add("POST", "/v1/tcp/-/dial", "host=h&port=1", "Upgrade", "fairlead-dial")
	f.Fuzz(func(t *testing.T, method, path, query, key, value string) {
		raw := method + " " + path + "?" + query + " HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n" + key + ": " + value + "\r\n\r\n"
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil {
			return
		}
		r, err := protocol.ParseRequest(req)
		if err != nil {
			var e *protocol.Error
			if !errors.As(err, &e) {
				t.Fatalf("an error without a code: %v", err)
			}
			return
		}
		// What is accepted means the same after another trip.
		again, err := protocol.ParseRequest(wire(t, r))
		if err != nil {
			t.Fatalf("accepted once, refused again: %v", err)
		}
		r.Header, again.Header = nil, nil
		if len(r.Limits.MaskColumns) == 0 {
			r.Limits.MaskColumns, again.Limits.MaskColumns = nil, nil
		}
		r.Require, again.Require = nil, nil
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("not stable:\n %+v\n %+v", r, again)
		}
	})
}

func TestEncodingIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &protocol.Request{Kind: protocol.KindFiles, Profile: "p", Operation: protocol.OpRead, Path: rapid.String().Draw(t, "path"), Header: http.Header{}}
		got, err := protocol.ParseRequest(wire(t, r))
		if err != nil {
			t.Fatal(err)
		}
		if got.Path != r.Path {
			t.Fatalf("path %q became %q", r.Path, got.Path)
		}
	})
}
