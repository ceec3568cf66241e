package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

type loginCommand struct {
	User    string   `placeholder:"NAME" help:"Sign in with this user name and a password instead of a token."`
	First   bool     `help:"Set the password by a one-time code before, with --user."`
	Browser bool     `help:"Sign in with the browser on this machine instead: the relay's page asks whether this program may act for you."`
	For     lifetime `placeholder:"8h" help:"End the session after this time at the latest, with --user or --browser; the workspace may end it earlier."`
	Idle    lifetime `placeholder:"30m" help:"End the session when it was not used for so long, with --user or --browser."`
}

func (*loginCommand) Examples() []string {
	return []string{
		"# asks for the token", "fairlead login --relay relay.example.com:8443 --ca ca.pem",
		"# asks for the password, and for a code of the second factor", "fairlead login --relay relay.example.com:8443 --ca ca.pem --user anna",
		"# with the browser, where a passkey can be used, too", "fairlead login --relay relay.example.com:8443 --ca ca.pem --browser",
		"# the first time, or when the password was lost: asks for the one-time code and a new password", "fairlead login --relay relay.example.com:8443 --ca ca.pem --user anna --first",
		"# from a secret store", "vault read -field=token secret/fairlead | fairlead login --relay relay.example.com:8443 --ca ca.pem",
		"fairlead login --relay relay.example.com:8443 --ca ca.pem --token-file admin.token --workspace default",
	}
}

func (k *loginCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if r.Relay == "" {
		return &protocol.Error{Code: protocol.CodeInvalid, Message: "login wants --relay HOST:PORT", Hint: "with --ca ca.pem from the relay's data folder"}
	}
	switch {
	case k.First && (k.User == "" || k.Browser):
		return cli.Usage("--first goes with --user NAME alone; in a browser, a link does it")
	case k.User == "" && !k.Browser && (k.For != 0 || k.Idle != 0):
		return cli.Usage("--for and --idle go with --user NAME or --browser")
	}
	var token secret.Bytes
	var err error
	if k.User == "" && !k.Browser {
		if token, err = r.token(t); err != nil {
			return err
		}
		if token.IsZero() {
			if token, err = t.ReadSecret("API token"); err != nil {
				return err
			}
		}
	}
	l := login{Workspace: r.Workspace}
	if r.CA != "" {
		pem, err := os.ReadFile(r.CA)
		if err != nil {
			return fmt.Errorf("read CA: %w", err)
		}
		l.CA = string(pem)
	}
	c, err := client.New(client.Config{Relay: r.Relay, CAFile: r.CA, Proxy: r.Proxy, Workspace: r.Workspace, Token: token, UserAgent: userAgent()})
	if err != nil {
		return err
	}
	defer c.Close()
	l.Relay = c.Relay()
	if k.Browser {
		return k.byBrowser(ctx, t, r, c, l)
	}
	if k.User != "" {
		return k.signIn(ctx, t, c, l)
	}
	who, err := c.Whoami(ctx)
	if err != nil {
		return fmt.Errorf("log in: %w", err) // nothing is saved
	}
	l.Token = token.ExposeString()
	path, err := l.save()
	if err != nil {
		return err
	}
	t.Notef("logged in to %s as %s (%s); saved in %s\n", c.Relay(), cli.Clean(who.Name), cli.Clean(strings.Join(who.Roles, ", ")), path)
	return nil
}

type logoutCommand struct{}

func (*logoutCommand) Examples() []string { return []string{"fairlead logout"} }

func (*logoutCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	path, err := loginFile()
	if err != nil {
		return err
	}
	ended, told := endSaved(ctx, r)
	switch err := os.Remove(path); {
	case errors.Is(err, fs.ErrNotExist):
		t.Notef("there was no saved login\n")
	case err != nil:
		return fmt.Errorf("forget the login: %w", err)
	case ended && told == nil:
		t.Notef("signed out: the session has ended\n")
	case ended:
		t.Notef("forgotten; the relay could not be told (%s), so the session stays until it ends by itself\n", cli.Clean(told.Error()))
	default:
		t.Notef("forgotten; the token itself stays valid until it expires or is revoked\n")
	}
	return nil
}

type whoamiCommand struct{ cli.Output }

func (*whoamiCommand) Examples() []string {
	return []string{"fairlead whoami", "fairlead whoami --output json"}
}

func (k *whoamiCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	who, err := c.Whoami(ctx)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(who)
	}
	return t.Table([]string{"principal", "name", "workspace", "roles", "from", "relay"},
		[][]string{{who.Principal, who.Name, who.Workspace, strings.Join(who.Roles, ","), who.SourceAddress, c.Relay()}})
}
