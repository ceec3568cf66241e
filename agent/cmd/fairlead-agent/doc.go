// Command fairlead-agent runs on the site: it dials out to the relay and does exactly what agent.yaml allows.
package main
