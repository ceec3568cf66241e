// Package hostile tries a real agent binary with a relay that has turned against it: it holds valid certificates, speaks
// the protocol, and sends what it likes.
//
// The rows of the attack catalog that a relay can try (A: destinations, B: folders, C: databases) are subtests that carry
// their ids; those that cannot run here stand in a table with the reason and the test that covers them. After every row
// the agent must be alive and lean, hold its tunnel, listen on nothing, and have recorded what it refused.
//
// Test files only, for Linux: the oracles read /proc.
package hostile
