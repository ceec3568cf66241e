package main

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

type joinTokenCommands struct {
	Create joinTokenCreate `cmd:"" help:"Make a token for one enrolment. The token alone goes to standard output."`
	List   joinTokenList   `cmd:"" help:"List the tokens that are still open."`
	Revoke joinTokenRevoke `cmd:"" help:"Make an open token useless."`
}

type joinTokenCreate struct {
	Group   string   `required:"" placeholder:"GROUP" help:"Agent group that the new agent joins."`
	Expires lifetime `default:"1h" placeholder:"1h" help:"How long the token may be used: 30m, 12h, 7d."`
	cli.Output
}

func (*joinTokenCreate) Examples() []string {
	return []string{
		"fairlead join-token create --group default",
		"# straight to the site's machine, in no history and no process list",
		"fairlead join-token create --group default | ssh site fairlead-agent enroll --data /var/lib/fairlead-agent",
	}
}

func (k *joinTokenCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	made, err := c.CreateJoinToken(ctx, client.NewJoinToken{Group: k.Group, ExpiresInSeconds: k.Expires.seconds()})
	if err != nil {
		return about(k.Group, err)
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Printf("%s\n", cli.Clean(made.Token))
	t.Notef("join token %s for group %s: one use, until %s; it is not shown again\n", made.ID, cli.Clean(made.Group), stamp(made.ExpiresAt))
	return nil
}

type joinTokenList struct{ cli.Output }

func (*joinTokenList) Examples() []string { return []string{"fairlead join-token list"} }

func (k *joinTokenList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	tokens, err := c.JoinTokens(ctx)
	if err != nil {
		return err
	}
	return list(t, k.Output, tokens, []string{"id", "group", "created", "by", "expires"}, func(j client.JoinToken) []string {
		return []string{j.ID, j.Group, stamp(j.CreatedAt), j.CreatedBy, stamp(j.ExpiresAt)}
	})
}

type joinTokenRevoke struct {
	ID string `arg:"" help:"Id of the join token."`
	ifMatch
}

func (*joinTokenRevoke) Examples() []string {
	return []string{"fairlead join-token revoke in_7k2mxq4v5h6j7k2mxq4v5h6j7k"}
}

func (k *joinTokenRevoke) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).RevokeJoinToken(ctx, k.ID); err != nil {
		return about(k.ID, err)
	}
	t.Notef("join token %s is revoked\n", cli.Clean(k.ID))
	return nil
}

type tokensCommands struct {
	Create tokensCreate `cmd:"" help:"Make an API token. The token alone goes to standard output, this once."`
	List   tokensList   `cmd:"" help:"List API tokens."`
	Revoke tokensRevoke `cmd:"" help:"End an API token at once, open streams included."`
}

type tokensCreate struct {
	Name            string   `arg:"" help:"What or whom the token is for."`
	For             string   `placeholder:"ACCOUNT" help:"Service account that it is for, by name or id: the token may what the account may. Without it, a new account of the token's name with --role is made."`
	Mine            bool     `help:"Make a token of your own: it may what you may, if the workspace's sign-in policy admits personal tokens."`
	Role            []string `placeholder:"ROLE" help:"Role of the new account: owner, admin, operator or analyst. May be given several times."`
	Connection      []string `placeholder:"NAME" help:"Connection that the roles are given on, by name or id. May be given several times. Without it, the whole workspace."`
	OnlyAction      []string `placeholder:"ACTION" help:"Limit the token to this action, like connection.query (docs/permissions.md lists them). May be given several times, as all --only-…."`
	OnlyConnection  []string `placeholder:"NAME" help:"Limit the token to this connection."`
	OnlyProject     []string `placeholder:"NAME" help:"Limit the token to what stands in this project."`
	OnlyEnvironment []string `placeholder:"NAME" enum:"development,test,production" help:"Limit the token to connections of this environment: ${enum}."`
	OnlyFrom        []string `placeholder:"PREFIX" help:"Limit the token to this network or address."`
	Expires         lifetime `placeholder:"90d" help:"How long it is valid: 12h, 90d."`
	cli.Output
}

func (*tokensCreate) Examples() []string {
	return []string{"fairlead tokens create nightly-report --role analyst --connection sales --expires 90d > report.token",
		"fairlead tokens create this-week --for nightly-report --only-action connection.query --only-from 192.0.2.0/24",
		"fairlead tokens create laptop --mine --only-environment development --expires 12h"}
}

func (k *tokensCreate) only() *client.TokenOnly {
	o := client.TokenOnly{Actions: k.OnlyAction, Environments: k.OnlyEnvironment, Projects: k.OnlyProject, Connections: k.OnlyConnection, From: k.OnlyFrom}
	if len(o.Actions)+len(o.Environments)+len(o.Projects)+len(o.Connections)+len(o.From) == 0 {
		return nil
	}
	return &o
}

func (k *tokensCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	switch whose := len(k.Role) > 0; {
	case k.Mine && (k.For != "" || whose), k.For != "" && whose, !k.Mine && k.For == "" && !whose:
		return cli.Usage("want one of --role, --for and --mine: fairlead tokens create nightly-report --role analyst")
	case len(k.Connection) > 0 && !whose:
		return cli.Usage("--connection says on what --role is given; to limit the token, use --only-connection")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var made client.CreatedToken
	if k.Mine {
		made, err = c.CreateOwnToken(ctx, client.NewPersonalToken{Name: k.Name, Only: k.only(), ExpiresInSeconds: k.Expires.seconds()})
	} else {
		made, err = c.CreateToken(ctx, client.NewToken{Name: k.Name, Principal: k.For, Roles: k.Role, Connections: k.Connection, Only: k.only(), ExpiresInSeconds: k.Expires.seconds()})
	}
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(made)
	}
	t.Printf("%s\n", cli.Clean(made.Token))
	until := "it is revoked"
	if made.ExpiresAt != nil {
		until = stamp(*made.ExpiresAt)
	}
	t.Notef("API token %s (%s): valid until %s; it is not shown again\n", cli.Clean(made.Name), made.ID, until)
	return nil
}

type tokensList struct {
	Mine bool `help:"List your own alone."`
	cli.Output
}

func (*tokensList) Examples() []string {
	return []string{"fairlead tokens list", "fairlead tokens list --mine"}
}

func (k *tokensList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	tokens, err := []client.Token(nil), error(nil)
	if k.Mine {
		tokens, err = c.OwnTokens(ctx)
	} else {
		tokens, err = c.Tokens(ctx)
	}
	if err != nil {
		return err
	}
	return list(t, k.Output, tokens, []string{"id", "name", "of", "roles", "limited to", "created", "expires", "last used", "from"}, func(a client.Token) []string {
		return []string{a.ID, a.Name, a.PrincipalName, strings.Join(a.Roles, ","), limits(a.Only), stamp(a.CreatedAt), stampPtr(a.ExpiresAt), stampPtr(a.LastUsedAt), a.LastUsedFrom}
	})
}

func limits(o *client.TokenOnly) string {
	if o == nil {
		return ""
	}
	return strings.Join(slices.Concat(o.Actions, o.Environments, o.Projects, o.Connections, o.From), ",")
}

type tokensRevoke struct {
	ID   string `arg:"" help:"Id of the token."`
	Mine bool   `help:"It is your own: that takes no right to manage tokens."`
	ifMatch
}

func (*tokensRevoke) Examples() []string {
	return []string{"fairlead tokens revoke tok_7k2mxq4v5h6j7k2mxq4v5h6j7k"}
}

func (k *tokensRevoke) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	revoke := k.on(c).RevokeToken
	if k.Mine {
		revoke = k.on(c).RevokeOwnToken
	}
	if err := revoke(ctx, k.ID); err != nil {
		return about(k.ID, err)
	}
	t.Notef("API token %s is revoked\n", cli.Clean(k.ID))
	return nil
}

type allowlistCommands struct {
	Show   allowlistShow   `cmd:"" help:"Show the addresses that may call the relay."`
	Set    allowlistSet    `cmd:"" help:"Replace them."`
	Add    allowlistAdd    `cmd:"" help:"Add to one of the lists; the rest of it stays."`
	Remove allowlistRemove `cmd:"" help:"Take from one of the lists; the rest of it stays."`
}

type allowlistShow struct{ cli.Output }

func (*allowlistShow) Examples() []string { return []string{"fairlead allowlist show"} }

func (k *allowlistShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	a, err := c.Allowlist(ctx)
	if err != nil {
		return err
	}
	return k.print(t, a)
}

func (k *allowlistShow) print(t *cli.Term, a client.Allowlist) error {
	if k.JSON() {
		return t.JSON(a)
	}
	for _, p := range a.Prefixes {
		t.Printf("%s\n", cli.Clean(p))
	}
	if len(a.Prefixes) == 0 {
		t.Notef("the list is empty: it admits nobody\n")
	}
	for _, s := range slices.Sorted(maps.Keys(a.Lists)) {
		t.Printf("%s:\n", cli.Clean(s))
		for _, p := range a.Lists[s] {
			t.Printf("  %s\n", cli.Clean(p))
		}
		if len(a.Lists[s]) == 0 {
			t.Notef("the list of %s is empty: it admits nobody\n", cli.Clean(s))
		}
	}
	return nil
}

type allowlistSet struct {
	Prefixes []string `arg:"" optional:"" help:"Prefixes or addresses: 192.0.2.0/24, 2001:db8::/32, 198.51.100.7."`
	For      string   `enum:"callers,people,tokens,agents,gateways" default:"callers" placeholder:"WHOM" help:"Whose list: ${enum}. People, tokens and gateways without a list of their own go by that of callers; agents without one may come from everywhere."`
	None     bool     `help:"Set the empty list, which admits nobody."`
	Unset    bool     `help:"Take the list that --for names away."`
	allowlistChange
}

// allowlistChange is common to what changes one of the lists.
type allowlistChange struct {
	Confirm bool `help:"Do it even if it shuts out your own address, or cuts agents that are connected."`
	DryRun  bool `help:"Change nothing; show which sessions, tokens and agents would be cut."`
	allowlistShow
	ifMatch
}

// take has the relay take what is set for whom, or tell who that would cut, and shows its answer.
func (k *allowlistChange) take(ctx context.Context, t *cli.Term, c *client.Client, whose string, set client.SetAllowlist) error {
	set.Confirm, set.DryRun = k.Confirm, k.DryRun
	if set.For = whose; whose == callers { // as when nothing is said
		set.For = ""
	}
	a, err := k.on(c).SetAllowlist(ctx, set)
	var lockout *protocol.Error
	if errors.As(err, &lockout) && lockout.Code == protocol.CodeConflict && !k.Confirm {
		said := *lockout
		said.Hint = "nothing was changed; add what is missing (fairlead whoami shows your own address, --dry-run who would be cut), or --confirm"
		return &said
	}
	switch {
	case err != nil:
		return err
	case k.DryRun:
		return k.printCut(t, whose, a)
	}
	return k.print(t, a)
}

// callers is whose list it is when nothing is said.
const callers = "callers"

func (*allowlistSet) Examples() []string {
	return []string{"fairlead allowlist set 192.0.2.0/24 2001:db8::/32", "fairlead allowlist set --for agents 198.51.100.0/24", "fairlead allowlist set --for people --unset",
		"fairlead allowlist set --dry-run 192.0.2.0/24"}
}

func (k *allowlistSet) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	if (len(k.Prefixes) == 0) != (k.None || k.Unset) || k.None && k.Unset {
		return &protocol.Error{Code: protocol.CodeInvalid, Message: "want prefixes, or --none alone, or --unset alone", Hint: "fairlead allowlist set 192.0.2.0/24"}
	}
	if _, err := plainPrefixes(k.Prefixes); err != nil {
		return err
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	return k.take(ctx, t, c, k.For, client.SetAllowlist{Prefixes: k.Prefixes, Unset: k.Unset})
}

// printCut shows who would be cut. The table is there without a row, too: that nobody would be cut is an answer.
func (k *allowlistChange) printCut(t *cli.Term, whose string, a client.Allowlist) error {
	if a.WouldCut == nil {
		return &protocol.Error{Code: protocol.CodeInternal, Message: "the relay did not answer the dry run", Hint: "see with `fairlead allowlist show` whether it changed the list"}
	}
	if k.JSON() {
		t.Notef("nothing was changed\n")
		return t.JSON(a)
	}
	cut := a.WouldCut
	var rows [][]string
	for _, kind := range []struct {
		name string
		all  []client.AllowlistCutOff
	}{{"session", cut.Sessions}, {"token", cut.Tokens}, {"agent", cut.Agents}} {
		for _, one := range kind.all {
			rows = append(rows, []string{kind.name, one.ID, one.Name, one.Address})
		}
	}
	if err := t.Table([]string{"would cut", "id", "name", "address"}, rows); err != nil {
		return err
	}
	for _, what := range slices.Sorted(maps.Keys(cut.More)) {
		t.Notef("and %d %s more, that are not named\n", cut.More[what], cli.Clean(what))
	}
	if cut.You {
		t.Notef("your own address would be shut out\n")
	}
	if whose == callers || whose == "gateways" {
		t.Notef("connections through gateway ports are not looked at\n")
	}
	t.Notef("nothing was changed\n")
	return nil
}
