package authz_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/fairleadhq/fairlead/relay/authz"
)

var update = flag.Bool("update", false, "write docs/permissions.md")

// page is docs/permissions.md, made of the table.
func page() string {
	var b strings.Builder
	b.WriteString(`# Permissions

For admins. Made from the table in the code that decides (` + "`relay/authz`" + `) by ` + "`go test ./relay/authz -update`" + `; a test holds it to that.
What roles, grants, teams and environments are: [relay-operation.md](relay-operation.md#rights).

An action is a verb on a kind of asset. Who holds **manage** of an asset holds its create, edit and delete, which can also be given one by
one; who holds all of these does not hold manage by that. A grant counts where its action does:

| counts on | a grant must be on |
|---|---|
| workspace | the whole workspace |
| connection | the connection, the folder or project that it stands in, a folder above that, its environment, or the workspace |
| environment | the environment that it is about, or the workspace; of what is in none, the workspace |
| any scope | what the action is about (a connection, a folder, a project, an environment, the workspace), or what that lies in |

A route or operation that stands in no row is refused.

| action | asset | verb | counts on | owner | admin | operator | analyst | guards, below ` + "`/api/v1/workspaces/{workspace}`" + ` |
|---|---|---|---|---|---|---|---|---|
`)
	level := map[Level]string{OnWorkspace: "workspace", OnConnection: "connection", OnScope: "any scope", OnEnvironment: "environment"}
	for _, p := range Actions {
		_, _ = fmt.Fprintf(&b, "| `%s` | %s | %s | %s |", p.Action, p.Asset, p.Verb, level[p.Level])
		for _, r := range Roles {
			held := ""
			if r.Allows(p.Action) {
				held = "yes"
			}
			_, _ = fmt.Fprintf(&b, " %s |", held)
		}
		_, _ = fmt.Fprintf(&b, " %s |\n", p.Guards)
	}
	b.WriteString("\n`GET /api/v1/whoami` is for everybody with a token, and `GET /api/v1/openapi.json` for everybody. Custom roles hold any actions but\n`workspace.own`.\n")
	return b.String()
}

func TestPermissionsPageIsUpToDate(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "permissions.md")
	if *update {
		if err := os.WriteFile(path, []byte(page()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(string(b), "\r\n", "\n") != page() {
		t.Error("docs/permissions.md is not what the table says: go test ./relay/authz -update")
	}
}
