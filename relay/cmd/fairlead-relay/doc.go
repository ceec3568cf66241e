// Command fairlead-relay runs in the cloud: it lets callers in, keeps the record, and reaches the agents that dialled in.
package main
