package clienttest

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// Token is the only API token that the relay knows.
const Token = "flt_0123456789012345678901234567890123456789012"

// Time stands for every time that the relay tells.
var Time = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A Relay is a fake relay. The exported fields may be changed before a call; methods of testing use Lock.
type Relay struct {
	URL, Host string // https://127.0.0.1:PORT and 127.0.0.1:PORT
	CAFile    string // PEM of the certificate to trust

	sync.Mutex
	Agents      []client.Agent
	Groups      []client.Group
	JoinTokens  []client.JoinToken
	Connections []client.Connection
	Tokens      []client.Token
	Allowlist   []string
	// Allowlists are those of others than callers. BeforeAllowlist, if set, is called before each change of one.
	Allowlists      map[string][]string
	BeforeAllowlist func()
	Files           map[string][]byte
	Uploads         map[string][]byte
	PageSize        int // of lists; 0: one page
	// DenyConnections refuses the list of connections.
	DenyConnections bool
	// CutReads breaks off so many file answers in their middle; CutWrites so many uploads after half of their bytes.
	CutReads, CutWrites int
	// BeforePut, if set, is called with the id of each upload before its part is looked at.
	BeforePut func(upload string)
	// AuditLog, AuditCheckpoints and AuditKey are what the audit routes answer; Events what the events route does.
	AuditLog, AuditCheckpoints []byte
	AuditKey                   client.AuditKey
	Events                     []string
	// EventStreams counts calls of the events route; each gets Events after its "after", and follows until it is closed.
	EventStreams int
	// Requests are the requests as they came: "METHOD /path?query", and Bodies what came with those that are JSON.
	Requests []string
	Bodies   []string
	// IfMatch is that header of each request that is no GET.
	IfMatch []string

	server *httptest.Server
}

// New starts a relay that ends with the test.
func New(t *testing.T) *Relay {
	t.Helper()
	end := Time.Add(7 * 24 * time.Hour)
	r := &Relay{
		Agents: []client.Agent{
			{
				ID: "agt_1", Name: "plant", Group: "default", State: client.AgentActive, Version: "v1.0.0", ConnectedSince: &Time, LastSeen: &Time,
				SourceAddress: "192.0.2.7", ConfigDigest: "sha256:0123456789abcdef", Hostname: "host1", OS: "linux", Arch: "amd64", Tunnels: 2,
				CertificateNotAfter: &end, CreatedAt: Time, Profiles: []protocol.ProfileOffer{
					{Name: "sales", Kind: protocol.KindDatabase, Adapter: "postgresql", Operations: []protocol.Operation{protocol.OpQuery, protocol.OpSchema}}},
			},
			{ID: "agt_2", Name: "evil\x1b[2Jname", Group: "default", State: client.AgentAwaitingSetup, ReloadError: "agent.yaml:3:1: unknown key", CreatedAt: Time},
		},
		Groups:      []client.Group{{ID: "grp_1", Name: "default", Agents: 2, CreatedAt: Time}},
		Connections: []client.Connection{{ID: "con_1", Name: "sales", Group: "default", Profile: "sales", Kind: protocol.KindDatabase, Adapter: "postgresql", Available: true, CreatedAt: Time}},
		Tokens:      []client.Token{{ID: "tok_1", Name: "admin", Roles: []string{"admin"}, CreatedAt: Time}},
		Allowlist:   []string{"127.0.0.0/8"},
		Allowlists:  map[string][]string{},
		Files:       map[string][]byte{"a.csv": []byte("id,name\n1,x\n"), "in/b.txt": []byte("hello")},
		Uploads:     map[string][]byte{},
		Events: []string{
			`{"seq":1,"id":"evt_1","time":"2026-11-21T12:00:00Z","kind":"operation.begin","principal":"tok_1","connection":"con_1","operation":"query","decision":"allow"}`,
			`{"seq":2,"id":"evt_2","time":"2026-11-21T12:00:01Z","kind":"operation.end","connection":"con_1","operation":"exec","decision":"deny","rule":"database.sales.allow.mode","target":"x\u001b[31m"}`,
		},
	}
	mux := http.NewServeMux()
	r.routes(mux)
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.Lock()
		r.Requests = append(r.Requests, q.Method+" "+q.URL.RequestURI())
		if q.Method != http.MethodGet {
			r.IfMatch = append(r.IfMatch, q.Header.Get("If-Match"))
		}
		if q.Header.Get("Content-Type") == "application/json" {
			b, _ := io.ReadAll(q.Body)
			r.Bodies = append(r.Bodies, string(b))
			q.Body = io.NopCloser(bytes.NewReader(b))
		}
		r.Unlock()
		if q.Header.Get("Authorization") != "Bearer "+Token && q.Header.Get("Authorization") != "Bearer "+Session && !strings.HasSuffix(q.URL.Path, "/openapi.json") && !strings.HasSuffix(q.URL.Path, "/sign-in") && !strings.HasPrefix(q.URL.Path, client.BasePath+"/sign-in/") {
			Fail(w, &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "no valid API token was given", Origin: protocol.OriginRelay, Hint: "fairlead login", RequestID: "req_test"})
			return
		}
		mux.ServeHTTP(w, q)
	}))
	r.server.Config.ErrorLog = log.New(io.Discard, "", 0) // aborted answers are meant
	r.server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	r.server.StartTLS()
	t.Cleanup(func() {
		r.server.CloseClientConnections()
		r.server.Close()
	})
	r.URL, r.Host = r.server.URL, r.server.Listener.Addr().String()
	r.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.server.Certificate().Raw})
	if err := os.WriteFile(r.CAFile, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return r
}

// Requested reports how many requests began with prefix.
func (r *Relay) Requested(prefix string) int {
	r.Lock()
	defer r.Unlock()
	n := 0
	for _, q := range r.Requests {
		if strings.HasPrefix(q, prefix) {
			n++
		}
	}
	return n
}

// LastBody is the JSON body that came last.
func (r *Relay) LastBody() string {
	r.Lock()
	defer r.Unlock()
	if len(r.Bodies) == 0 {
		return ""
	}
	return r.Bodies[len(r.Bodies)-1]
}

// LastIfMatch is the header If-Match of the last request that was no GET.
func (r *Relay) LastIfMatch() string {
	r.Lock()
	defer r.Unlock()
	if len(r.IfMatch) == 0 {
		return ""
	}
	return r.IfMatch[len(r.IfMatch)-1]
}

// Fail answers a problem.
func Fail(w http.ResponseWriter, e *protocol.Error) {
	w.Header().Set("Content-Type", client.ContentProblem)
	w.Header().Set(protocol.HeaderOrigin, string(e.Origin))
	w.WriteHeader(e.Code.Status())
	_ = json.NewEncoder(w).Encode(client.NewProblem(e))
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// page answers a list, in pages when PageSize says so.
func page[T any](r *Relay, w http.ResponseWriter, q *http.Request, items []T) {
	l := client.List[T]{Items: items}
	if r.PageSize > 0 {
		from, _ := strconv.Atoi(q.URL.Query().Get("cursor"))
		to := min(from+r.PageSize, len(items))
		l.Items = items[from:to]
		if to < len(items) {
			l.Cursor = strconv.Itoa(to)
		}
	}
	answer(w, 200, l)
}

func missing(what string) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "there is no such " + what, Origin: protocol.OriginRelay, RequestID: "req_test"}
}

// one answers the item that matches, or that there is none.
func one[T any](w http.ResponseWriter, items []T, what string, match func(T) bool) {
	if i := slices.IndexFunc(items, match); i >= 0 {
		answer(w, 200, items[i])
		return
	}
	Fail(w, missing(what))
}

// drop removes the items that match, or answers that there is none.
func drop[T any](w http.ResponseWriter, items *[]T, what string, match func(T) bool) {
	n := len(*items)
	*items = slices.DeleteFunc(*items, match)
	if len(*items) == n {
		Fail(w, missing(what))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (r *Relay) routes(mux *http.ServeMux) {
	const ws = client.BasePath + "/workspaces/default"
	handle := func(pattern string, h func(w http.ResponseWriter, q *http.Request)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" "+ws+path, func(w http.ResponseWriter, q *http.Request) {
			r.Lock()
			defer r.Unlock()
			h(w, q)
		})
	}
	mux.HandleFunc("GET "+client.BasePath+"/whoami", func(w http.ResponseWriter, q *http.Request) {
		answer(w, 200, client.Whoami{Principal: "tok_1", Name: "admin", Workspace: "default", Roles: []string{"admin"}, SourceAddress: "127.0.0.1"})
	})
	mux.HandleFunc("GET "+client.BasePath+"/openapi.json", func(w http.ResponseWriter, q *http.Request) {
		answer(w, 200, map[string]string{"openapi": "3.1.0"})
	})
	handle("GET /agents", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, r.Agents) })
	handle("GET /agents/{id}", func(w http.ResponseWriter, q *http.Request) {
		if i := r.agent(q); i >= 0 {
			answer(w, 200, r.Agents[i])
			return
		}
		Fail(w, missing("agent"))
	})
	handle("POST /agents/{id}/{verb}", func(w http.ResponseWriter, q *http.Request) {
		i := r.agent(q)
		if i < 0 {
			Fail(w, missing("agent"))
			return
		}
		r.Agents[i].State = map[string]string{"disable": client.AgentDisabled, "enable": client.AgentNoResponse}[q.PathValue("verb")]
		answer(w, 200, r.Agents[i])
	})
	handle("DELETE /agents/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &r.Agents, "agent", func(a client.Agent) bool { return a.ID == q.PathValue("id") })
	})
	handle("GET /groups", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, r.Groups) })
	handle("POST /groups", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewGroup
		_ = json.NewDecoder(q.Body).Decode(&n)
		if slices.ContainsFunc(r.Groups, func(g client.Group) bool { return g.Name == n.Name }) {
			Fail(w, &protocol.Error{Code: protocol.CodeConflict, Message: "a group of this name exists", Origin: protocol.OriginRelay})
			return
		}
		g := client.Group{ID: "grp_2", Name: n.Name, Environment: n.Environment, CreatedAt: Time}
		r.Groups = append(r.Groups, g)
		answer(w, 201, g)
	})
	handle("DELETE /groups/{name}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &r.Groups, "group", func(g client.Group) bool { return g.Name == q.PathValue("name") })
	})
	handle("GET /join-tokens", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, r.JoinTokens) })
	handle("POST /join-tokens", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewJoinToken
		_ = json.NewDecoder(q.Body).Decode(&n)
		if n.ExpiresInSeconds == 0 {
			n.ExpiresInSeconds = 3600
		}
		t := client.JoinToken{ID: fmt.Sprintf("in_%d", len(r.JoinTokens)+1), Group: n.Group, CreatedAt: Time, ExpiresAt: Time.Add(time.Duration(n.ExpiresInSeconds) * time.Second)}
		r.JoinTokens = append(r.JoinTokens, t)
		answer(w, 201, client.CreatedJoinToken{ID: t.ID, Token: "flj_sample", Group: t.Group, ExpiresAt: t.ExpiresAt})
	})
	handle("DELETE /join-tokens/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &r.JoinTokens, "join token", func(t client.JoinToken) bool { return t.ID == q.PathValue("id") })
	})
	r.gatewayRoutes(handle)
	r.allowlistRoutes(handle)
	r.budgetRoutes(handle)
	r.rightsRoutes(handle)
	r.projectRoutes(handle)
	r.peopleRoutes(mux, handle)
	handle("GET /connections", func(w http.ResponseWriter, q *http.Request) {
		if r.DenyConnections {
			Fail(w, &protocol.Error{Code: protocol.CodeDenied, Message: "you may not list connections", Origin: protocol.OriginRelay})
			return
		}
		page(r, w, q, r.Connections)
	})
	handle("GET /connections/{name}", func(w http.ResponseWriter, q *http.Request) {
		for _, c := range r.Connections {
			if c.Name == q.PathValue("name") {
				answer(w, 200, c)
				return
			}
		}
		Fail(w, missing("connection"))
	})
	handle("POST /connections", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewConnection
		_ = json.NewDecoder(q.Body).Decode(&n)
		c := client.Connection{ID: "con_2", Name: n.Name, Group: n.Group, Profile: n.Profile, Environment: n.Environment, Project: n.Project, Folder: n.Folder, Target: n.Target, CreatedAt: Time}
		if n.Gateway != nil {
			c.Gateway = gatewayOf(*n.Gateway)
		}
		r.Connections = append(r.Connections, c)
		answer(w, 201, c)
	})
	handle("DELETE /connections/{name}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &r.Connections, "connection", func(c client.Connection) bool { return c.Name == q.PathValue("name") })
	})
	handle("GET /tokens", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, r.Tokens) })
	handle("POST /tokens", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewToken
		_ = json.NewDecoder(q.Body).Decode(&n)
		c := client.CreatedToken{ID: "tok_2", Name: n.Name, Roles: n.Roles, Token: "flt_sample", Only: n.Only}
		if n.ExpiresInSeconds > 0 {
			at := Time.Add(time.Duration(n.ExpiresInSeconds) * time.Second)
			c.ExpiresAt = &at
		}
		r.Tokens = append(r.Tokens, client.Token{ID: c.ID, Name: c.Name, Roles: c.Roles, ExpiresAt: c.ExpiresAt, CreatedAt: Time})
		answer(w, 201, c)
	})
	handle("DELETE /tokens/{id}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &r.Tokens, "token", func(t client.Token) bool { return t.ID == q.PathValue("id") })
	})
	handle("GET /quota", func(w http.ResponseWriter, q *http.Request) {
		page(r, w, q, []client.Quota{{Name: "agents", Used: 3, Most: 10}, {Name: "tokens", Used: 2}})
	})
	var domains []client.Domain
	handle("GET /domains", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, domains) })
	handle("POST /domains", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewDomain
		_ = json.NewDecoder(q.Body).Decode(&n)
		domains = append(domains, client.Domain{ID: "dom_1", Name: n.Name, CreatedAt: Time, CertificateEndsAt: &Time})
		answer(w, 201, domains[len(domains)-1])
	})
	handle("GET /domains/{name}", func(w http.ResponseWriter, q *http.Request) {
		one(w, domains, "domain", func(d client.Domain) bool { return d.Name == q.PathValue("name") })
	})
	handle("DELETE /domains/{name}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &domains, "domain", func(d client.Domain) bool { return d.Name == q.PathValue("name") })
	})
	var services []client.ServiceAccount
	handle("GET /service-accounts", func(w http.ResponseWriter, q *http.Request) { page(r, w, q, services) })
	handle("POST /service-accounts", func(w http.ResponseWriter, q *http.Request) {
		var n client.NewServiceAccount
		_ = json.NewDecoder(q.Body).Decode(&n)
		services = append(services, client.ServiceAccount{ID: "usr_3", Name: n.Name, Roles: n.Roles, CreatedAt: Time})
		answer(w, 201, services[len(services)-1])
	})
	for path, disabled := range map[string]bool{"disable": true, "enable": false} {
		handle("POST /service-accounts/{name}/"+path, func(w http.ResponseWriter, _ *http.Request) {
			for i := range services {
				services[i].Disabled = disabled
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	handle("GET /service-accounts/{name}", func(w http.ResponseWriter, q *http.Request) {
		one(w, services, "service account", func(s client.ServiceAccount) bool { return s.Name == q.PathValue("name") })
	})
	handle("DELETE /service-accounts/{name}", func(w http.ResponseWriter, q *http.Request) {
		drop(w, &services, "service account", func(s client.ServiceAccount) bool { return s.Name == q.PathValue("name") })
	})
	r.auditRoutes(mux, ws)
	r.dataRoutes(mux, ws+"/connections/{connection}")
}

func (r *Relay) agent(q *http.Request) int {
	return slices.IndexFunc(r.Agents, func(a client.Agent) bool { return a.ID == q.PathValue("id") })
}

func (r *Relay) auditRoutes(mux *http.ServeMux, ws string) {
	mux.HandleFunc("GET "+ws+"/audit/events", func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", protocol.ContentNDJSON)
		after, _ := strconv.ParseUint(q.URL.Query().Get("after"), 10, 64)
		r.Lock()
		r.EventStreams++
		events, kind := r.Events, q.URL.Query().Get("kind")
		if n, _ := strconv.Atoi(q.URL.Query().Get("limit")); n > 0 && !q.URL.Query().Has("after") { // counted from the newest back
			events = events[max(0, len(events)-n):]
		}
		r.Unlock()
		for _, line := range events {
			var e client.AuditEvent
			if json.Unmarshal([]byte(line), &e) == nil && e.Seq > after && (kind == "" || e.Kind == kind) {
				_, _ = io.WriteString(w, line+"\n")
			}
		}
		if q.URL.Query().Get("follow") == "true" {
			_, _ = io.WriteString(w, "\n") // heartbeat
			_ = http.NewResponseController(w).Flush()
			<-q.Context().Done()
		}
	})
	raw := func(path string, b *[]byte) {
		mux.HandleFunc("GET "+ws+path, func(w http.ResponseWriter, q *http.Request) {
			r.Lock()
			defer r.Unlock()
			w.Header().Set("Content-Type", protocol.ContentNDJSON)
			after, _ := strconv.Atoi(q.URL.Query().Get("after"))
			limit, _ := strconv.Atoi(q.URL.Query().Get("limit"))
			for i, line := range bytes.SplitAfter(*b, []byte("\n")) {
				if i >= after && (limit == 0 || i < after+limit) {
					_, _ = w.Write(line)
				}
			}
		})
	}
	raw("/audit/log", &r.AuditLog)
	raw("/audit/checkpoints", &r.AuditCheckpoints)
	mux.HandleFunc("GET "+ws+"/audit/key", func(w http.ResponseWriter, q *http.Request) { answer(w, 200, r.AuditKey) })
}
