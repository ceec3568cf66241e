// Package cli is what the three commands share: parsing (kong), help with examples, shell completion, the version
// command, tables and JSON, progress, prompts, errors and exit statuses.
//
// It promises: an error is one block that says what failed, who refused it, by which rule and what to do; its exit
// status is the one of docs/exit-codes.md; text that comes from elsewhere (names, rows, messages) reaches a terminal
// without control characters; the first interrupt cancels the command's context and the second ends the process.
//
// It never reads a configuration file, never talks to the network, and never takes a secret from an argument.
package cli
