package main

import (
	"os"

	"github.com/fairleadhq/fairlead/internal/cli"
)

func main() { os.Exit(cli.Run(program(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

type grammar struct {
	relayFlags

	Login  loginCommand  `cmd:"" help:"Check a relay and a token, or sign in with user name and password, and save that for later commands."`
	Logout logoutCommand `cmd:"" help:"End the session of the saved login, and forget it."`
	Whoami whoamiCommand `cmd:"" help:"Show who the relay takes you for, and from which address you come."`

	Account      accountCommands      `cmd:"" help:"Show what the relay keeps of you: password, second factor, what is missing; set your e-mail address."`
	Confirm      confirmCommand       `cmd:"" help:"Prove again that it is you, before a dangerous act."`
	Password     passwordCommand      `cmd:"" help:"Change your password; your other sessions end."`
	SecondFactor secondFactorCommands `cmd:"" help:"Set up, replace or remove your second factor."`
	Passkeys     passkeysCommands     `cmd:"" help:"Show and remove your passkeys; a browser adds them."`
	Sessions     sessionsCommands     `cmd:"" help:"Show and end sessions."`

	Query       queryCommand       `cmd:"" help:"Run a statement and print its rows."`
	Exec        execCommand        `cmd:"" help:"Run one statement that changes data."`
	Transaction transactionCommand `cmd:"" help:"Run several statements: all take effect, or none."`
	Schema      schemaCommand      `cmd:"" help:"Show tables, columns and keys."`
	Files       filesCommands      `cmd:"" help:"List, read and write files."`
	Request     requestCommand     `cmd:"" help:"Send an HTTP request to the service behind a connection."`
	Connect     connectCommand     `cmd:"" help:"Open a local port for native clients (psql, mysql, anything)."`

	Agents      agentsCommands      `cmd:"" help:"Show and manage agents."`
	Groups      groupsCommands      `cmd:"" help:"Manage agent groups."`
	JoinToken   joinTokenCommands   `cmd:"" help:"Manage the single-use tokens that enrol agents."`
	Connections connectionsCommands `cmd:"" help:"Manage connections."`
	Projects    projectsCommands    `cmd:"" help:"Manage projects, which hold connections."`
	Folders     foldersCommands     `cmd:"" help:"Manage folders of projects."`
	Promote     promoteCommand      `cmd:"" help:"Copy a project's connections from one environment to another."`
	Tokens      tokensCommands      `cmd:"" help:"Manage API tokens, those of programs and your own."`
	Services    servicesCommands    `cmd:"" name:"service-accounts" help:"Manage service accounts: programs that hold tokens."`
	Roles       rolesCommands       `cmd:"" help:"Show roles, and manage custom ones."`
	Grants      grantsCommands      `cmd:"" help:"Show who holds which role, give and take."`
	Teams       teamsCommands       `cmd:"" help:"Manage teams: what is given to one, each member holds."`
	Workspace   workspaceCommands   `cmd:"" name:"workspace" help:"What is done to the workspace as a whole."`
	Explain     explainCommand      `cmd:"" help:"Tell why somebody may do an action, or what is missing."`
	Users       usersCommands       `cmd:"" help:"Manage the people of the workspace."`
	Policy      policyCommands      `cmd:"" name:"sign-in-policy" help:"Show and set what is demanded of who signs in."`
	Domains     domainsCommands     `cmd:"" help:"Manage names of the workspace's own that its people call the relay by."`
	Allowlist   allowlistCommands   `cmd:"" help:"Show and set the addresses that may call the relay."`
	Budget      budgetCommands      `cmd:"" help:"Show and set what the workspace and its connections may use of the relay."`
	Quota       quotaCommand        `cmd:"" help:"Show how much the workspace has of what the relay's operator bounds."`
	Audit       auditCommands       `cmd:"" help:"Read and verify the audit log."`
}

func (*grammar) Examples() []string {
	return []string{
		"fairlead login --relay relay.example.com:8443 --ca ca.pem",
		"fairlead query sales 'select * from orders where id = $1' --arg int:7",
		"fairlead files get hr:reports/2026.csv",
		"fairlead connect sales --listen 127.0.0.1:5433",
	}
}

func program() cli.Program {
	g := &grammar{}
	return cli.Program{
		Name: "fairlead",
		Description: "Reach databases, files and services behind a Fairlead agent. The relay is found by --relay, --token-file and --ca, " +
			"by FAIRLEAD_RELAY, FAIRLEAD_TOKEN (or FAIRLEAD_TOKEN_FILE), FAIRLEAD_CA and FAIRLEAD_WORKSPACE, or by what \"fairlead login\" saved.",
		Grammar: g, Bind: []any{&g.relayFlags}, Groups: map[string]string{"relay": "The relay:"},
	}
}
