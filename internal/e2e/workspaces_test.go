package e2e_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// in is a client of one workspace.
func in(t *testing.T, w *testenv.World, workspace string, token secret.Bytes) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Relay: w.Address, Token: token, CAFile: w.CAFile, Workspace: workspace})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// P9: a workspace that the relay's operator makes beside one that works, through the built programs: its owner signs in, an agent enrols,
// and neither sees anything of the other. It can be destroyed again, and the first one stays.
func TestSecondWorkspaceIsApart(t *testing.T) {
	w := shop(t, testenv.Options{})
	w.Connection("shop")
	if err := count(t, w.Client); err != nil {
		t.Fatal(err)
	}
	data, file := filepath.Join(w.Dir, "relay"), filepath.Join(w.Dir, "berta.code")
	host := func(args ...string) output {
		t.Helper()
		o := runProgram(t, nil, "", program(t, "fairlead-relay"), append(args, "--data", data)...)
		if o.Exit != 0 {
			t.Fatal(args, o)
		}
		return o
	}
	home := t.TempDir()
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "AppData=" + home}
	fairlead := func(stdin string, args ...string) output {
		return runProgram(t, env, stdin, program(t, "fairlead"), args...)
	}

	made := host("workspace", "create", "sales", "--owner", "berta", "--code-file", file)
	if !strings.Contains(made.Err, "callers may come from: 127.0.0.0/8, ::1/128\n") || made.Out != "" {
		t.Fatal(made)
	}
	one, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	within(t, 20*time.Second, "the running relay has the workspace", func() bool {
		o := fairlead(string(one)+goodPassword+"\n", "login", "--first", "--relay", w.Address, "--ca", w.CAFile, "--workspace", "sales", "--user", "berta")
		return o.Exit == 0
	})
	if o := fairlead("", "whoami"); !strings.Contains(o.Out, "berta") || !strings.Contains(o.Out, "owner") {
		t.Fatal(o)
	}
	s, err := w.NewClient(secret.Bytes{}).SignIn(ctx, client.SignIn{Workspace: "sales", User: "berta", Password: goodPassword})
	if err != nil {
		t.Fatal(err)
	}
	session := secret.FromString(s.Session)
	berta, admin := in(t, w, "sales", session), w.Client

	agents, err := berta.Agents(ctx)
	connections, cerr := berta.Connections(ctx)
	users, uerr := berta.Users(ctx)
	groups, gerr := berta.Groups(ctx)
	if err != nil || cerr != nil || uerr != nil || gerr != nil || len(agents)+len(connections) != 0 || len(users) != 1 || users[0].Name != "berta" || len(groups) != 1 || groups[0].Name != "default" {
		t.Fatal(agents, connections, users, groups, err, cerr, uerr, gerr)
	}

	// An agent of the same site, with the same profile, behind a connection of the same name.
	w.Client = berta
	stop := w.Another("berta-agent")
	defer stop()
	w.Connection("shop")
	w.Client = admin
	for name, c := range map[string]*client.Client{"sales": berta, "default": admin} {
		if err := count(t, c); err != nil {
			t.Fatal(name, err)
		}
	}
	theirs, err := berta.Agents(ctx)
	ours, oerr := admin.Agents(ctx)
	if err != nil || oerr != nil || len(theirs) != 1 || len(ours) != 1 || theirs[0].ID == ours[0].ID {
		t.Fatal(theirs, ours, err, oerr)
	}
	connections, err = berta.Connections(ctx)
	if err != nil || len(connections) != 1 {
		t.Fatal(connections, err)
	}
	own, err := admin.Connections(ctx)
	if err != nil || len(own) != 1 || own[0].ID == connections[0].ID {
		t.Fatal(own, err)
	}

	t.Run("each log tells of its own alone", func(t *testing.T) {
		me, err := berta.Whoami(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			name   string
			client *client.Client
			not    []string
		}{
			{"sales", berta, []string{ours[0].ID, own[0].ID}},
			{"default", admin, []string{theirs[0].ID, connections[0].ID, me.Principal}},
		} {
			var kinds []string
			for e, err := range c.client.AuditEvents(ctx, client.AuditQuery{Oldest: true}) {
				if err != nil {
					t.Fatal(c.name, err)
				}
				b, err := json.Marshal(e)
				if err != nil {
					t.Fatal(err)
				}
				for _, id := range c.not {
					if bytes.Contains(b, []byte(id)) {
						t.Errorf("%s tells of the other: %s", c.name, b)
					}
				}
				kinds = append(kinds, string(e.Kind))
			}
			if len(kinds) < 5 || kinds[0] != "process.start" || !slices.Contains(kinds, "agent.enrolled") || !slices.Contains(kinds, "operation.outcome") {
				t.Error(c.name, kinds)
			}
		}
	})
	t.Run("J1 the other workspace answers as one that is not there", func(t *testing.T) {
		for _, c := range []struct {
			who, other string
			token      secret.Bytes
		}{{"berta", "default", session}, {"the admin", "sales", w.Token}} {
			there, nowhere := in(t, w, c.other, c.token), in(t, w, "nowhere", c.token)
			for what, ask := range map[string]func(*client.Client) error{
				"agents":      func(c *client.Client) error { _, err := c.Agents(ctx); return err },
				"connections": func(c *client.Client) error { _, err := c.Connections(ctx); return err },
				"users":       func(c *client.Client) error { _, err := c.Users(ctx); return err },
				"a query":     func(c *client.Client) error { return count(t, c) },
				"the end":     func(c *client.Client) error { return c.DeleteWorkspace(ctx, "sales") },
				"a join token": func(c *client.Client) error {
					_, err := c.CreateJoinToken(ctx, client.NewJoinToken{Group: "default"})
					return err
				},
			} {
				err, missing := ask(there), ask(nowhere)
				if got, _ := code(err); got != protocol.CodeNotFound || missing == nil || err.Error() != missing.Error() {
					t.Errorf("%s, %s of the other workspace: %v; of none: %v", c.who, what, err, missing)
				}
			}
		}
		for what, err := range map[string]error{"agent": berta.DisableAgent(ctx, ours[0].ID), "connection": admin.DeleteConnection(ctx, connections[0].ID)} {
			if got, _ := code(err); got != protocol.CodeNotFound {
				t.Errorf("the other workspace's %s by its id: %v", what, err)
			}
		}
	})
	t.Run("who belongs to one cannot sign in to the other", func(t *testing.T) {
		nobody := w.NewClient(secret.Bytes{})
		_, err := nobody.SignIn(ctx, client.SignIn{Workspace: "default", User: "berta", Password: goodPassword})
		_, missing := nobody.SignIn(ctx, client.SignIn{Workspace: "nowhere", User: "berta", Password: goodPassword})
		if got, _ := code(err); got != protocol.CodeUnauthenticated || missing == nil || err.Error() != missing.Error() {
			t.Error(err, missing)
		}
	})
	t.Run("it is destroyed by its owner, and by nobody else's doing", func(t *testing.T) {
		if o := fairlead("", "workspace", "delete", "sales", "--yes"); o.Exit != 0 {
			t.Fatal(o)
		}
		if o := host("workspace", "list"); strings.Contains(o.Out, "sales") || !strings.Contains(o.Out, "default") {
			t.Error(o)
		}
		if _, err := berta.Whoami(ctx); err == nil {
			t.Error("a session of a workspace that is gone counts")
		}
		if err := count(t, admin); err != nil {
			t.Error(err)
		}
		if o := host("workspace", "create", "sales", "--owner", "berta"); strings.Contains(o.Err, made.Err[strings.Index(made.Err, "ws_"):][:29]) {
			t.Error("the old one came back", o)
		}
	})
}

// One person can belong to several workspaces: here the owner of the second is somebody of the first, who keeps the one password, and is
// in each what that one makes her.
func TestOnePersonInTwoWorkspaces(t *testing.T) {
	w := testenv.Bare(t, testenv.Options{})
	cleo, _ := person(t, w, "cleo", "analyst")
	account, err := cleo.Account(ctx)
	if err != nil {
		t.Fatal(err)
	}
	o := runProgram(t, nil, "", program(t, "fairlead-relay"), "workspace", "create", "press", "--owner", "cleo.k", "--person", account.Person, "--data", filepath.Join(w.Dir, "relay"))
	if o.Exit != 0 || o.Out != "" || strings.Contains(o.Err, "code") {
		t.Fatal(o)
	}
	signIn := func(workspace, user string) (*client.Client, error) {
		s, err := w.NewClient(secret.Bytes{}).SignIn(ctx, client.SignIn{Workspace: workspace, User: user, Password: goodPassword})
		if err != nil {
			return nil, err
		}
		return in(t, w, workspace, secret.FromString(s.Session)), nil
	}
	var there *client.Client
	testenv.Eventually(t, "the running relay has the workspace", func() bool { there, err = signIn("press", "cleo.k"); return err == nil })
	if _, err := signIn("press", "cleo"); err == nil {
		t.Error("the name that she has elsewhere counts, too")
	}
	for c, role := range map[*client.Client]string{cleo: "analyst", there: "owner"} {
		if me, err := c.Whoami(ctx); err != nil || !slices.Equal(me.Roles, []string{role}) {
			t.Error(me, err)
		}
	}
	if _, err := in(t, w, "press", w.Token).Users(ctx); err == nil {
		t.Error("the admin of her home sees the other workspace")
	}
	if _, err := there.CreateGroup(ctx, client.NewGroup{Name: "west"}); err != nil {
		t.Error("the owner may not what owners may:", err)
	}
	if _, err := cleo.CreateGroup(ctx, client.NewGroup{Name: "west"}); err == nil {
		t.Error("at home she may what she may elsewhere")
	} else if got, _ := code(err); got != protocol.CodeDenied {
		t.Error(err)
	}
}
