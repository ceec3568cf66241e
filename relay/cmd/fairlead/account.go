package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"rsc.io/qr"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// sessionPrefix begins the text of a session.
const sessionPrefix = "fls_"

// signIn asks for what the relay wants, and saves the session.
func (k *loginCommand) signIn(ctx context.Context, t *cli.Term, c *client.Client, l login) error {
	var pass secret.Bytes
	var err error
	if k.First {
		code, err := t.ReadSecret("One-time code")
		if err != nil {
			return err
		}
		if pass, err = t.ReadNewPassword("New password"); err != nil {
			return err
		}
		if err := c.SetFirstPassword(ctx, client.FirstPassword{Workspace: c.Workspace(), User: k.User, Code: code.ExposeString(), Password: pass.ExposeString()}); err != nil {
			return err
		}
		t.Notef("the password is set\n")
	} else if pass, err = t.ReadPassword("Password"); err != nil {
		return err
	}
	in := client.SignIn{Workspace: c.Workspace(), User: k.User, Password: pass.ExposeString(), IdleSeconds: k.Idle.seconds(), LifeSeconds: k.For.seconds()}
	s, err := c.SignIn(ctx, in)
	if ruleOf(err) == client.RuleCode {
		code, cerr := t.ReadSecret("Code of the second factor, or a recovery code")
		if cerr != nil {
			return cerr
		}
		in.Code = code.ExposeString()
		s, err = c.SignIn(ctx, in)
	}
	if err != nil {
		return err // nothing is saved
	}
	return k.saved(t, c, l, s)
}

// saved keeps the session, and says whose it is.
func (*loginCommand) saved(t *cli.Term, c *client.Client, l login, s client.SignedIn) error {
	l.Token = s.Session
	path, err := l.save()
	if err != nil {
		return err
	}
	t.Notef("signed in to %s as %s, until %s at the latest; saved in %s\n", c.Relay(), cli.Clean(s.User), stamp(s.ExpiresAt), path)
	noteNeeds(t, s.Needs)
	return nil
}

// noteNeeds says what a session lacks.
func noteNeeds(t *cli.Term, what string) {
	switch what {
	case client.NeedsSecondFactor:
		t.Notef("the workspace demands a second factor, and until you have one you can do nothing else: fairlead second-factor add\n")
	case client.NeedsPassword:
		t.Notef("your password has expired, and until you change it you can do nothing else: fairlead password\n")
	case client.NeedsPasskey:
		t.Notef("a passkey is wanted, and until you show or add one you can do nothing else: open the relay's page /account in a browser\n")
	case client.NeedsCode:
		t.Notef("the session began without your second factor: sign in again\n")
	}
}

func ruleOf(err error) string {
	var e *protocol.Error
	if errors.As(err, &e) {
		return e.Rule
	}
	return ""
}

// endSaved ends the session of the saved login, if it is one.
func endSaved(ctx context.Context, r *relayFlags) (was bool, err error) {
	saved, err := readLogin()
	if err != nil || saved == nil || !strings.HasPrefix(saved.Token, sessionPrefix) {
		return false, nil
	}
	conf := client.Config{Proxy: r.Proxy, UserAgent: userAgent()}
	if err := saved.fill(&conf); err != nil {
		return true, err
	}
	c, err := client.New(conf)
	if err != nil {
		return true, err
	}
	defer c.Close()
	if err = c.SignOut(ctx); client.CodeOf(err) == protocol.CodeUnauthenticated {
		err = nil // it had ended
	}
	return true, err
}

// renewed keeps a session's new text where the old one was: in the saved login, or, when it was given otherwise, with who gave it.
func (r *relayFlags) renewed(t *cli.Term, s client.SignedIn) error {
	if r.TokenFile == "" && strings.TrimSpace(os.Getenv("FAIRLEAD_TOKEN")) == "" {
		if saved, err := readLogin(); err != nil {
			return err
		} else if saved != nil {
			saved.Token = s.Session
			_, err := saved.save()
			return err
		}
	}
	t.Printf("%s\n", cli.Clean(s.Session))
	t.Notef("the session has a new text, printed above; the one that you gave counts no more\n")
	return nil
}

type accountCommands struct {
	Show  accountCommand `cmd:"" default:"withargs" help:"Show what the relay keeps of you: password, second factor, what is missing."`
	Email accountEmail   `cmd:"" help:"Set your own e-mail address, where codes and notices go, or take it away."`
}

type accountEmail struct {
	Address string `arg:"" optional:"" help:"The new address."`
	Remove  bool   `help:"Take the address away."`
	ifMatch
}

func (*accountEmail) Examples() []string {
	return []string{"fairlead account email anna@example.com", "fairlead account email --remove"}
}

func (k *accountEmail) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if (k.Address == "") != k.Remove {
		return cli.Usage("want an address, or --remove alone")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := k.on(c).SetOwnEmail(ctx, k.Address)
	if err != nil {
		return err
	}
	if a.Email == "" {
		t.Notef("you have no e-mail address any more\n")
		return nil
	}
	t.Notef("your e-mail address is %s now\n", cli.Clean(a.Email))
	return nil
}

type accountCommand struct{ cli.Output }

func (*accountCommand) Examples() []string {
	return []string{"fairlead account", "fairlead account show --output json"}
}

func (k *accountCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := c.Account(ctx)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(a)
	}
	factor := "none"
	if a.SecondFactorSince != nil {
		factor = "since " + stamp(*a.SecondFactorSince)
	}
	for _, line := range [][2]string{{"user", a.User}, {"workspace", a.Workspace}, {"person", a.Person}, {"password set", stamp(a.PasswordSetAt)}, {"second factor", factor},
		{"recovery codes left", strconv.Itoa(a.RecoveryCodes)}, {"passkeys", strconv.Itoa(a.Passkeys)}, {"e-mail", cmp.Or(a.Email, "none")}} {
		t.Printf("%-20s %s\n", line[0]+":", cli.Clean(line[1]))
	}
	noteNeeds(t, a.Needs)
	return nil
}

type confirmCommand struct{}

func (*confirmCommand) Examples() []string { return []string{"fairlead confirm"} }

func (*confirmCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := c.Account(ctx)
	if err != nil {
		return err
	}
	var p client.Confirm
	if a.SecondFactorSince != nil {
		code, err := t.ReadSecret("Code of the second factor, or a recovery code")
		if err != nil {
			return err
		}
		p.Code = code.ExposeString()
	} else {
		pass, err := t.ReadPassword("Password")
		if err != nil {
			return err
		}
		p.Password = pass.ExposeString()
	}
	s, err := c.Confirm(ctx, p)
	if err != nil {
		return err
	}
	t.Notef("confirmed: dangerous acts are possible for some minutes\n")
	return r.renewed(t, s)
}

type passwordCommand struct{}

func (*passwordCommand) Examples() []string { return []string{"fairlead password"} }

func (*passwordCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	old, err := t.ReadPassword("Present password")
	if err != nil {
		return err
	}
	pass, err := t.ReadNewPassword("New password")
	if err != nil {
		return err
	}
	s, err := c.ChangePassword(ctx, client.ChangePassword{Password: old.ExposeString(), NewPassword: pass.ExposeString()})
	if err != nil {
		return err
	}
	t.Notef("the password is changed; your other sessions have ended\n")
	return r.renewed(t, s)
}

type secondFactorCommands struct {
	Add           factorAdd    `cmd:"" help:"Set up an authenticator app, in place of one that is there. Recovery codes alone go to standard output, this once."`
	Remove        factorRemove `cmd:"" help:"Take the second factor away."`
	RecoveryCodes factorCodes  `cmd:"" help:"Make new recovery codes in place of the old. They alone go to standard output, this once."`
}

type factorAdd struct{}

func (*factorAdd) Examples() []string { return []string{"fairlead second-factor add"} }

func (*factorAdd) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	n, err := c.BeginSecondFactor(ctx)
	if err != nil {
		return err
	}
	if cli.IsTerminal(t.Err) {
		if err := printQR(t, n.URI); err != nil {
			return err
		}
	}
	t.Notef("scan this with an authenticator app, or type the secret: %s\n%s\n", cli.Clean(n.Secret), cli.Clean(n.URI))
	code, err := t.ReadSecret("Code that the app shows")
	if err != nil {
		return err
	}
	codes, err := c.ProveSecondFactor(ctx, code.ExposeString())
	if err != nil {
		return err
	}
	if codes.Session != nil {
		if err := r.renewed(t, *codes.Session); err != nil {
			return err
		}
	}
	t.Notef("the second factor is in force, and your other sessions have ended\n")
	printCodes(t, codes.Codes)
	return nil
}

// printCodes prints recovery codes where they can be kept.
func printCodes(t *cli.Term, codes []string) {
	for _, c := range codes {
		t.Printf("%s\n", cli.Clean(c))
	}
	t.Notef("recovery codes: each counts once in place of a code, when the phone is lost; keep them apart from it; they are not shown again\n")
}

// printQR draws a QR code with half blocks, two rows to a line, black on white whatever the terminal's colours.
func printQR(t *cli.Term, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return err
	}
	const quiet = 4 // ISO/IEC 18004 wants so many white modules around
	for y := -quiet; y < code.Size+quiet; y += 2 {
		var b strings.Builder
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteRune([]rune{' ', '▀', '▄', '█'}[bit(code.Black(x, y))|bit(code.Black(x, y+1))<<1])
		}
		t.Notef("\x1b[30;107m%s\x1b[0m\n", b.String())
	}
	return nil
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

type factorRemove struct {
	Yes bool `short:"y" help:"Do not ask."`
}

func (*factorRemove) Examples() []string { return []string{"fairlead second-factor remove"} }

func (k *factorRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if err := confirm(t, "Remove your second factor?", k.Yes); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.RemoveSecondFactor(ctx); err != nil {
		return err
	}
	t.Notef("the second factor is removed, and your other sessions have ended\n")
	return nil
}

type factorCodes struct{}

func (*factorCodes) Examples() []string {
	return []string{"fairlead second-factor recovery-codes > recovery-codes"}
}

func (*factorCodes) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	codes, err := c.NewRecoveryCodes(ctx)
	if err != nil {
		return err
	}
	printCodes(t, codes.Codes)
	return nil
}

type sessionsCommands struct {
	List sessionsList `cmd:"" help:"List your sessions, in all workspaces."`
	End  sessionsEnd  `cmd:"" help:"End a session at once, open streams included."`
}

type sessionsList struct {
	Everybody bool `help:"Everybody's in this workspace."`
	cli.Output
}

func (*sessionsList) Examples() []string {
	return []string{"fairlead sessions list", "fairlead sessions list --everybody"}
}

func (k *sessionsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	get := c.OwnSessions
	if k.Everybody {
		get = c.Sessions
	}
	l, err := get(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, l, []string{"id", "user", "workspace", "from", "program", "began", "last used", "ends", "this"}, func(s client.Session) []string {
		this := ""
		if s.Current {
			this = "yes"
		}
		return []string{s.ID, s.User, s.Workspace, s.Source, s.Agent, stamp(s.CreatedAt), stamp(s.LastUsedAt), stamp(s.EndsAt), this}
	})
}

type sessionsEnd struct {
	ID     string `arg:"" optional:"" help:"Id of one of your sessions."`
	Others bool   `help:"All of yours but this one."`
	User   string `placeholder:"NAME" help:"As an admin: all sessions of this user in the workspace."`
	Any    bool   `help:"As an admin: the id is of anybody's session in the workspace."`
	ifMatch
}

func (*sessionsEnd) Examples() []string {
	return []string{"fairlead sessions end ses_7k2mxq4v5h6j7k2mxq4v5h6j7k", "fairlead sessions end --others", "fairlead sessions end --user anna"}
}

func (k *sessionsEnd) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if bit(k.ID != "")+bit(k.Others)+bit(k.User != "") != 1 || k.Any && k.ID == "" {
		return cli.Usage("want the id of a session, --others, or --user NAME")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	switch {
	case k.User != "":
		err = about(k.User, k.on(c).EndSessionsOf(ctx, k.User))
	case k.Any:
		err = about(k.ID, k.on(c).EndSession(ctx, k.ID))
	default:
		err = about(k.ID, k.on(c).EndOwnSession(ctx, k.ID))
	}
	if err == nil {
		t.Notef("ended\n")
	}
	return err
}
