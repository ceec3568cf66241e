// Package connector is the seam between the agent's request loop and the code that speaks to one kind of target.
//
// Each profile of agent.yaml has one Connector: databases (sqldb), folders (folder), HTTP services (httpapi) and raw TCP
// (tcp). A Connector is called only after the policy allowed the operation and the intent event is durable. It never sees
// a tunnel, never decides who may do what, and never writes audit events: it tells what happened in an Outcome.
package connector
