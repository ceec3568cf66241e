package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type usersCommands struct {
	List        usersList        `cmd:"" help:"List the people of the workspace."`
	Invite      usersInvite      `cmd:"" help:"Take somebody in. The one-time code that sets the password goes by e-mail where it can, else to standard output, this once."`
	Code        usersCode        `cmd:"" help:"Give a user who lost the password a new one-time code. It goes by e-mail where it can, else it alone to standard output, this once."`
	Email       usersEmail       `cmd:"" help:"Set a user's e-mail address, or take it away. An open one-time code that may have gone to the old one counts no more."`
	Disable     usersDisable     `cmd:"" help:"Refuse a user in this workspace at once, open streams included, until enabled."`
	Enable      usersEnable      `cmd:"" help:"Let a disabled user in again."`
	ResetFactor usersResetFactor `cmd:"" help:"Take a user's second factor away, for who lost phone and recovery codes."`
	Remove      usersRemove      `cmd:"" help:"Take a user out of the workspace; where it was invited first, for good."`
}

type usersList struct{ cli.Output }

func (*usersList) Examples() []string { return []string{"fairlead users list"} }

func (k *usersList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Users(ctx)
	if err != nil {
		return err
	}
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	return list(t, k.Output, l, []string{"name", "roles", "state", "second factor", "sessions", "home here", "e-mail", "created", "id"}, func(u client.User) []string {
		state := "active"
		switch {
		case u.Disabled:
			state = "disabled"
		case u.InvitedUntil != nil:
			state = "code open until " + stamp(*u.InvitedUntil)
		case !u.PasswordSet:
			state = "has no password"
		}
		factor := yes(u.SecondFactor)
		if !u.SecondFactor && u.Passkeys > 0 {
			factor = "passkey"
		}
		return []string{u.Name, strings.Join(u.Roles, ","), state, factor, strconv.Itoa(u.Sessions), yes(u.HomeHere), mailOf(u), stamp(u.CreatedAt), u.ID}
	})
}

type usersInvite struct {
	Name    string   `arg:"" help:"User name: small letters, digits and \"_-.@+\"."`
	Role    []string `required:"" placeholder:"ROLE" help:"Role on the workspace: admin, operator or analyst. May be given several times."`
	Person  string   `placeholder:"PER_ID" help:"Somebody who signs in to another workspace already (fairlead account shows the id); there is no code then."`
	Expires lifetime `placeholder:"24h" help:"How long the code counts: 30m, 24h, 7d."`
	Email   string   `placeholder:"ADDRESS" help:"E-mail address of the person; the code goes there where the relay sends e-mail."`
	byMail
	asLink
	cli.Output
}

func (*usersInvite) Examples() []string {
	return []string{"fairlead users invite anna --role operator", "fairlead users invite anna --role operator --link", "fairlead users invite bert --role operator --email bert@example.com", "fairlead users invite anna --role analyst --person per_7k2mxq4v5h6j7k2mxq4v5h6j7k"}
}

func (k *usersInvite) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := k.fits(k.Output); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	u, err := c.CreateUser(ctx, client.NewUser{Name: k.Name, Roles: k.Role, Person: k.Person, ExpiresInSeconds: k.Expires.seconds(), Email: k.Email, Send: k.Send, ShowCode: k.ShowCode})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(u)
	}
	return k.print(t, c, u)
}

// asLink has a one-time code printed as the address of the relay's page that takes it.
type asLink struct {
	Link bool `help:"Print a link to the relay's account page in place of the code; it holds the code, so it is as secret."`
}

func (k asLink) fits(o cli.Output) error {
	if k.Link && o.JSON() {
		return cli.Usage("--link goes with the output for people; JSON has the code")
	}
	return nil
}

func (k asLink) print(t *cli.Term, c *client.Client, u client.UserCode) error {
	if u.Sent {
		t.Notef("a one-time code for %s (%s) goes by e-mail to %s: it counts once, until %s. Whether it went: fairlead users list\n", cli.Clean(u.Name), u.ID, cli.Clean(u.Email), stampPtr(u.ExpiresAt))
		if u.Code == "" {
			return nil
		}
	}
	if u.Code == "" {
		t.Notef("user %s (%s) is in the workspace, and signs in with the password that it has\n", cli.Clean(u.Name), u.ID)
		return nil
	}
	if k.Link {
		link, err := client.FirstLink(c.Relay(), c.Workspace(), u.Name, u.Code)
		if err != nil {
			return err
		}
		t.Printf("%s\n", cli.Clean(link))
		t.Notef("link for %s (%s): counts once, until %s; it is not shown again\n", cli.Clean(u.Name), u.ID, stampPtr(u.ExpiresAt))
		return nil
	}
	t.Printf("%s\n", cli.Clean(u.Code))
	t.Notef("one-time code for %s (%s): counts once, until %s; it is not shown again. With it: fairlead login --relay %s --ca ca.pem --workspace %s --user %s --first\n",
		cli.Clean(u.Name), u.ID, stampPtr(u.ExpiresAt), strings.TrimPrefix(c.Relay(), "https://"), cli.Clean(c.Workspace()), cli.Clean(u.Name))
	return nil
}

type usersCode struct {
	Name    string   `arg:"" help:"Name or id of the user."`
	Expires lifetime `placeholder:"15m" help:"How long the code counts; 15m at most for who has a password."`
	byMail
	asLink
	cli.Output
	ifMatch
}

func (*usersCode) Examples() []string { return []string{"fairlead users code anna"} }

func (k *usersCode) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := k.fits(k.Output); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	u, err := k.on(c).NewUserCode(ctx, k.Name, client.NewUserCode{ExpiresInSeconds: k.Expires.seconds(), Send: k.Send, ShowCode: k.ShowCode})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(u)
	}
	return k.print(t, c, u)
}

// userArg names a user.
type userArg struct {
	Name string `arg:"" help:"Name or id of the user."`
}

func (k userArg) change(ctx context.Context, t *cli.Term, r *relayFlags, only ifMatch, done string, do func(*client.Client, context.Context, string) error) error {
	return r.change(ctx, t, only, "user", k.Name, done, do)
}

type usersDisable struct {
	userArg
	ifMatch
}

func (*usersDisable) Examples() []string { return []string{"fairlead users disable anna"} }

func (k *usersDisable) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "is disabled", (*client.Client).DisableUser)
}

type usersEnable struct {
	userArg
	ifMatch
}

func (*usersEnable) Examples() []string { return []string{"fairlead users enable anna"} }

func (k *usersEnable) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "is enabled", (*client.Client).EnableUser)
}

type usersResetFactor struct {
	userArg
	ifMatch
}

func (*usersResetFactor) Examples() []string { return []string{"fairlead users reset-factor anna"} }

func (k *usersResetFactor) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "has no second factor and no passkey any more, and no session", (*client.Client).ResetSecondFactor)
}

type usersRemove struct {
	userArg
	Yes bool `short:"y" help:"Do not ask."`
	ifMatch
}

func (*usersRemove) Examples() []string { return []string{"fairlead users remove anna"} }

func (k *usersRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Remove user "+cli.Clean(k.Name)+"?", k.Yes); err != nil {
		return err
	}
	return k.change(ctx, t, r, k.ifMatch, "is removed", (*client.Client).RemoveUser)
}
