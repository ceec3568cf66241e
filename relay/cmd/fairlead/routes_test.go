package main

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"github.com/fairleadhq/fairlead/relay/api"
)

// none begins the reason why no command asks a route.
const none = "none: "

const (
	inBrowser = none + "passkeys are made and shown by a browser: the relay's page asks it"
	aStat     = none + "fairlead files stat asks GET ~/connections/{connection}/stat"
)

// commandOf has a command for every route of the API, or the reason why there is none; "~" is /workspaces/{workspace}.
var commandOf = map[string]string{
	"GET /whoami":       "whoami",
	"GET /openapi.json": none + "the description is for programs, which fetch it without a token",
	"GET /tunnel":       none + "agents come by it: fairlead-agent run",

	"POST /sign-in": "login", "POST /sign-in/first": "login", "POST /sign-in/hand-over": "login", "POST /sign-out": "logout",
	"POST /sign-in/passkey/begin": inBrowser, "POST /sign-in/passkey": inBrowser,
	"GET /account": "account show", "PUT /account/email": "account email", "POST /account/password": "password", "POST /account/confirm": "confirm",
	"POST /account/confirm/passkey/begin": inBrowser, "POST /account/passkeys/begin": inBrowser, "POST /account/passkeys": inBrowser,
	"GET /account/passkeys": "passkeys list", "DELETE /account/passkeys/{id}": "passkeys remove",
	"POST /account/second-factor": "second-factor add", "PUT /account/second-factor": "second-factor add", "DELETE /account/second-factor": "second-factor remove",
	"POST /account/recovery-codes": "second-factor recovery-codes",
	"GET /account/tokens":          "tokens list", "POST /account/tokens": "tokens create", "DELETE /account/tokens/{id}": "tokens revoke",
	"GET /account/sessions": "sessions list", "DELETE /account/sessions": "sessions end", "DELETE /account/sessions/{id}": "sessions end",
	"POST /account/hand-over": none + "the relay's page asks it, for fairlead login --browser",

	"DELETE ~":     "workspace delete",
	"GET ~/agents": "agents list", "GET ~/agents/{id}": "agents show", "POST ~/agents/{id}/disable": "agents disable", "POST ~/agents/{id}/enable": "agents enable", "DELETE ~/agents/{id}": "agents remove",
	"GET ~/groups": "groups list", "POST ~/groups": "groups create", "DELETE ~/groups/{name}": "groups delete",
	"GET ~/join-tokens": "join-token list", "POST ~/join-tokens": "join-token create", "DELETE ~/join-tokens/{id}": "join-token revoke",
	"GET ~/connections": "connections list", "GET ~/connections/{name}": "connections show", "POST ~/connections": "connections create", "DELETE ~/connections/{name}": "connections delete",
	"PUT ~/connections/{name}/place": "connections move", "PUT ~/connections/{name}/gateway": "connections gateway", "DELETE ~/connections/{name}/gateway": "connections gateway",
	"GET ~/connections/{name}/budget": "budget show", "PUT ~/connections/{name}/budget": "budget set", "GET ~/budget": "budget show", "PUT ~/budget": "budget set", "GET ~/quota": "quota",
	"GET ~/tokens": "tokens list", "POST ~/tokens": "tokens create", "DELETE ~/tokens/{id}": "tokens revoke",
	"GET ~/allowlist": "allowlist show", "PUT ~/allowlist": "allowlist set",
	"GET ~/roles": "roles list", "GET ~/roles/{name}": "roles show", "POST ~/roles": "roles create", "PUT ~/roles/{name}": "roles update", "DELETE ~/roles/{name}": "roles delete",
	"GET ~/teams": "teams list", "GET ~/teams/{name}": "teams show", "POST ~/teams": "teams create", "DELETE ~/teams/{name}": "teams delete",
	"PUT ~/teams/{name}/members/{id}": "teams add", "DELETE ~/teams/{name}/members/{id}": "teams remove",
	"GET ~/grants": "grants list", "POST ~/grants": "grants create", "DELETE ~/grants/{id}": "grants delete",
	"GET ~/explain": "explain", "POST ~/explain/replay": "explain",
	"GET ~/users": "users list", "POST ~/users": "users invite", "POST ~/users/{id}/code": "users code", "PUT ~/users/{id}/email": "users email", "POST ~/users/{id}/disable": "users disable",
	"POST ~/users/{id}/enable": "users enable", "DELETE ~/users/{id}": "users remove", "DELETE ~/users/{id}/second-factor": "users reset-factor", "DELETE ~/users/{id}/sessions": "sessions end",
	"GET ~/sessions": "sessions list", "DELETE ~/sessions/{id}": "sessions end", "GET ~/sign-in-policy": "sign-in-policy show", "PUT ~/sign-in-policy": "sign-in-policy set",
	"GET ~/service-accounts": "service-accounts list", "GET ~/service-accounts/{name}": "service-accounts show", "POST ~/service-accounts": "service-accounts create",
	"POST ~/service-accounts/{name}/disable": "service-accounts disable", "POST ~/service-accounts/{name}/enable": "service-accounts enable", "DELETE ~/service-accounts/{name}": "service-accounts delete",
	"GET ~/domains": "domains list", "GET ~/domains/{name}": "domains show", "POST ~/domains": "domains add", "DELETE ~/domains/{name}": "domains remove",
	"GET ~/projects": "projects list", "GET ~/projects/{name}": "projects show", "POST ~/projects": "projects create", "PUT ~/projects/{name}": "projects rename", "DELETE ~/projects/{name}": "projects delete",
	"GET ~/projects/{name}/folders": "folders list", "POST ~/projects/{name}/folders": "folders create", "DELETE ~/projects/{name}/folders/{id}": "folders delete",
	"GET ~/audit/key": "audit key", "GET ~/audit/events": "audit list", "GET ~/audit/log": "audit export", "GET ~/audit/checkpoints": "audit export",

	"POST ~/connections/{connection}/query": "query", "POST ~/connections/{connection}/exec": "exec", "POST ~/connections/{connection}/transaction": "transaction", "GET ~/connections/{connection}/schema": "schema",
	"GET ~/connections/{connection}/list": "files ls", "GET ~/connections/{connection}/stat": "files stat", "POST ~/connections/{connection}/move": "files mv", "POST ~/connections/{connection}/mkdir": "files mkdir",
	"GET ~/connections/{connection}/files/{path...}": "files get", "HEAD ~/connections/{connection}/files/{path...}": aStat, "PUT ~/connections/{connection}/files/{path...}": "files put",
	"DELETE ~/connections/{connection}/files/{path...}": "files rm",
	"GET ~/connections/{connection}/http/{path...}":     "request", "HEAD ~/connections/{connection}/http/{path...}": "request", "POST ~/connections/{connection}/http/{path...}": "request",
	"PUT ~/connections/{connection}/http/{path...}": "request", "PATCH ~/connections/{connection}/http/{path...}": "request", "DELETE ~/connections/{connection}/http/{path...}": "request",
	"OPTIONS ~/connections/{connection}/http/{path...}": "request",
	"POST ~/connections/{connection}/dial":              "connect", "POST ~/tunnel": "connect",
}

// There is a command for everything that the API can do, and for what not, a reason.
func TestEveryRouteHasACommand(t *testing.T) {
	a := api.New(api.Config{Tunnel: func(http.ResponseWriter, *http.Request, netip.Addr) error { return nil }})
	k, err := kong.New(&grammar{}, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	var commands []string
	for _, leaf := range k.Model.Leaves(true) {
		name := leaf.Name
		if leaf.Parent.Parent != nil {
			name = leaf.Parent.Name + " " + name
		}
		commands = append(commands, name)
	}
	seen := map[string]bool{}
	for _, r := range a.Routes() {
		name := r.Method + " " + strings.Replace(r.Path, "/workspaces/{workspace}", "~", 1)
		seen[name] = true
		command, ok := commandOf[name]
		switch {
		case !ok:
			t.Errorf("%s: no command is named for it, and no reason why there is none", name)
		case strings.HasPrefix(command, none):
			if len(command) < len(none)+20 {
				t.Errorf("%s: %q is no reason", name, command)
			}
		case !slices.Contains(commands, command):
			t.Errorf("%s: there is no command %q", name, command)
		}
	}
	if len(seen) < 100 {
		t.Errorf("only %d routes were seen", len(seen))
	}
	for name := range commandOf {
		if !seen[name] {
			t.Errorf("%s: there is no such route", name)
		}
	}
}

func TestOneThingIsShown(t *testing.T) {
	setup(t)
	run("domains", "add", "data.example.com").want(t, 0, "", "the workspace's own")
	run("domains", "show", "data.example.com").want(t, 0, "dom_1", "")
	run("domains", "show", "data.example.com", "-o", "json").want(t, 0, `"id": "dom_1"`, "")
	run("domains", "show", "www.example.com").want(t, 66, "", "www.example.com: there is no such domain")
	run("teams", "create", "night").want(t, 0, "", "is made")
	run("teams", "add", "night", "reports").want(t, 0, "", "is in team")
	run("teams", "show", "night").want(t, 0, "reports", "")
	run("teams", "show", "day").want(t, 66, "", "no such team")
	run("service-accounts", "create", "loader").want(t, 0, "", "is made")
	run("service-accounts", "disable", "loader").want(t, 0, "", "is disabled")
	run("service-accounts", "show", "loader").want(t, 0, "disabled", "")
	run("service-accounts", "show", "other").want(t, 66, "", "no such service account")
	run("projects", "create", "sales").want(t, 0, "", "is made")
	run("projects", "show", "sales").want(t, 0, "prj_1", "")
	run("projects", "show", "plant").want(t, 66, "", "no such project")
}
