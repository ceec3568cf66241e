package main

import (
	"os"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/daemon"
)

// grammar is the command line.
type grammar struct {
	Enroll  enrollCommand   `cmd:"" help:"Turn a join token into this agent's identity."`
	Run     runCommand      `cmd:"" help:"Run the agent until it is stopped."`
	Check   checkCommand    `cmd:"" help:"Check agent.yaml; says every fault with its line, or what the site offers."`
	Probe   probeCommand    `cmd:"" help:"Try every way to the relays and tell what passes proxies and firewalls. Exit status 69: a relay is not reached."`
	Status  statusCommand   `cmd:"" help:"Tell from the data folder who this agent is and how its record stands. Exit status 78: it cannot work as it is."`
	Explain explainCommand  `cmd:"" help:"Tell which rule of agent.yaml decides an operation, offline. Exit status 77: refused."`
	Sample  sampleCommand   `cmd:"" help:"Write a sample site: agent.yaml, a small database and a folder, to try things out."`
	Service daemon.Commands `cmd:"" help:"Install, remove, start and stop the service of this machine."`
}

// Examples is shown by --help.
func (*grammar) Examples() []string {
	return []string{
		"fairlead-agent check --config agent.yaml",
		"fairlead-agent enroll --data /var/lib/fairlead-agent --token-file join.token",
		"fairlead-agent run --config agent.yaml --data /var/lib/fairlead-agent",
	}
}

func main() {
	version := cli.Build("fairlead-agent").Version
	svc := daemon.Service{Name: "fairlead-agent", DisplayName: "Fairlead agent", Verb: "run", NeedsConfig: true, FolderAccess: true,
		DataFiles:   []string{"identity.json", "identity.pem", "agent.lock", "fairlead-agent.log"},
		Description: "Gives the Fairlead relay access to exactly what agent.yaml allows; dials out, listens on nothing."}
	os.Exit(cli.Run(cli.Program{Name: "fairlead-agent", Description: "The on-prem half of Fairlead: dials out to the relay and does exactly what agent.yaml allows.",
		Grammar: &grammar{}, Bind: []any{svc, build{version}}}, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// build tells commands which build they are.
type build struct{ version string }
