package main

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay"
	"github.com/fairleadhq/fairlead/relay/directory"
)

// workspaceCommands need the relay's machine and key file, not a token: no caller of the API makes a workspace, or learns which there are.
type workspaceCommands struct {
	Create workspaceCreate `cmd:"" help:"Make a workspace with its owner, who sets a password by a one-time code."`
	List   workspaceList   `cmd:"" help:"List the workspaces of the installation."`
}

type workspaceCreate struct {
	where
	Name     string        `arg:"" help:"Name of the workspace."`
	Owner    string        `required:"" placeholder:"USER" help:"User name of its owner."`
	Person   string        `placeholder:"ID" help:"The owner is somebody who has signed in to another workspace: the id that \"fairlead account\" shows. No code is needed then."`
	Allow    []string      `placeholder:"CIDR" help:"Where callers may come from; repeat it. Default: this machine only."`
	Expires  time.Duration `default:"24h" help:"How long the code counts."`
	Link     bool          `help:"Give a link to the relay's account page in place of the code; it holds the code, so it is as secret."`
	CodeFile string        `type:"path" placeholder:"FILE" help:"Write the code there, readable by you alone, instead of printing it."`
}

func (*workspaceCreate) Examples() []string {
	return []string{
		"fairlead-relay workspace create sales --owner anna --data /var/lib/fairlead-relay --allow 203.0.113.0/24",
		"fairlead-relay workspace create sales --owner anna --data /var/lib/fairlead-relay --code-file anna.code",
	}
}

func (c *workspaceCreate) Run(ctx context.Context, t *cli.Term) (err error) {
	if c.Person != "" && (c.Link || c.CodeFile != "") {
		return cli.Usage("who belongs to another workspace has a password: there is no code for --link or --code-file")
	}
	allow, err := prefixes("--allow ", c.Allow)
	if err != nil {
		return err
	}
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	out, err := openCode(c.CodeFile) // first: what cannot be handed over is not made
	if err != nil {
		return err
	}
	w, code, err := relay.FoundWorkspace(ctx, cfg, directory.NewWorkspace{Name: c.Name, Allow: allow, Owner: c.Owner, Person: c.Person, Life: c.Expires})
	if err != nil {
		return errors.Join(err, out.drop())
	}
	owner := directory.UserName(c.Owner)
	t.Notef("made workspace %s (%s); a relay that runs takes it within a second or two\n", w.Name, w.ID)
	admitted := make([]string, len(w.Prefixes))
	for i, p := range w.Prefixes {
		admitted[i] = p.String()
	}
	t.Notef("  callers may come from: %s\n", strings.Join(admitted, ", "))
	if len(allow) == 0 {
		t.Notef("                         this machine only; another list: fairlead-relay allowlist --workspace %s CIDR...\n", w.Name)
	}
	t.Notef("  agents may come from:  everywhere, with a certificate of the workspace; bound it with: fairlead allowlist set --for agents\n")
	t.Notef("  agent group:           default\n")
	t.Notef("  owner:                 %s\n", owner)
	if c.Person != "" {
		t.Notef("%s signs in with the password that is known: fairlead login --relay %s --workspace %s --user %s\n", owner, cfg.PublicAddress, w.Name, owner)
		return nil
	}
	return handOver{Address: cfg.PublicAddress, Workspace: w.Name, User: owner, Life: c.Expires, Link: c.Link}.give(t, out, code)
}

type workspaceList struct {
	where
	cli.Output
}

func (*workspaceList) Examples() []string {
	return []string{"fairlead-relay workspace list --data /var/lib/fairlead-relay"}
}

// workspaceRow is what list shows of a workspace.
type workspaceRow struct {
	Name        string    `json:"name"`
	ID          string    `json:"id"`
	Created     time.Time `json:"created_at"`
	Owners      []string  `json:"owners"`
	Users       int       `json:"users"`
	Agents      int       `json:"agents"`
	Connections int       `json:"connections"`
}

func (c *workspaceList) Run(ctx context.Context, t *cli.Term) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	all, err := relay.Workspaces(ctx, cfg)
	if err != nil {
		return err
	}
	list := make([]workspaceRow, len(all))
	for i, w := range all {
		list[i] = workspaceRow{Name: w.Name, ID: w.ID, Created: w.Created, Owners: []string{}, Users: len(w.Users()), Agents: len(w.Agents), Connections: len(w.Connections)}
		for _, p := range w.Principals {
			if p.Owns() {
				list[i].Owners = append(list[i].Owners, p.Name)
			}
		}
	}
	if c.JSON() {
		return t.JSON(list)
	}
	rows := make([][]string, len(list))
	for i, r := range list {
		rows[i] = []string{r.Name, r.ID, r.Created.Format(time.RFC3339), strings.Join(r.Owners, ", "), strconv.Itoa(r.Users), strconv.Itoa(r.Agents), strconv.Itoa(r.Connections)}
	}
	return t.Table([]string{"name", "id", "created", "owners", "users", "agents", "connections"}, rows)
}
