//go:build linux

package hostile_test

import (
	"slices"
	"testing"
)

// catalog are the rows of the attack catalog: A, destinations; B, folders; C, databases. Numbers that are missing here were
// never given out.
var catalog = []string{
	"A1", "A2", "A3", "A4", "A5", "A6", "A8", "A9", "A10", "A13", "A14", "A15", "A16", "A17", "A18", "A20", "A21", "A22", "A23", "A25", "A26", "A27", "A28", "A29", "A30", "A31",
	"B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B9", "B10", "B11", "B14", "B16", "B19", "B20",
	"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C13", "C15", "C16", "C17", "C19", "C20", "C21", "C22", "C23", "C24", "C26", "C28", "C29", "C30", "C31",
}

// here are the rows that run as subtests of this package.
var here = []string{
	"A1", "A2", "A3", "A4", "A5", "A6", "A8", "A9", "A10", "A17", "A20", "A21", "A22", "A23", "A25", "A26", "A28", "A29", "A30", "A31",
	"B1", "B2", "B3", "B4", "B5", "B7", "B8", "B9", "B10", "B11", "B16", "B19", "B20",
	"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C13", "C15", "C16", "C21", "C22", "C26", "C28", "C29", "C30",
}

// notHere are the rows that a real agent binary on this machine cannot show, with the reason and the test that does.
var notHere = map[string]string{
	"A13": "needs a DNS server that the binary asks: agent/connector/tcp TestCatalogA/A13_rebinding",
	"A14": "by construction, nothing to ask for: agent/connector/tcp TestA14NothingElseDials, agent/policy TestResolvedAddress",
	"A15": "needs a DNS server that the binary asks: agent/connector/tcp TestCatalogA/A15_allowed_and_denied_addresses_mixed",
	"A16": "needs a DNS server that the binary asks: agent/connector/tcp TestCatalogA/A16_rogue_DNS",
	"A18": "slips in agent.yaml, which no relay touches: agent TestValidateNamesPlaceAndRemedy, internal/allowlist TestParsePrefix",
	"A27": "rogue servers of every password method, which are many: agent/connector/sqldb TestPasswordIsNotGivenAway",
	"B6":  "names that mean something on Windows alone: agent/connector/folder TestCatalogB/B6_names_that_mean_something_else_on_Windows, which runs everywhere",
	"B14": "SMB is a Windows matter; a folder's base comes from agent.yaml alone, and B1 sends UNC paths",
	"C17": "many lying servers: agent/connector/sqldb TestLyingServers, TestRowTooLarge",
	"C19": "no SQL Server can be had here: agent/policy/statement TestReadOnlyRefusesBypasses",
	"C20": "no Oracle server can be had here: agent/policy/statement TestReadOnlyRefusesBypasses",
	"C23": "needs a look into the connection pool: agent/connector/sqldb TestCallersDoNotSeeEachOther, TestCancelReachesTheServer",
	"C24": "needs a look into the connection pool: agent/connector/sqldb TestNoSessionStateIsLeft",
	"C31": "needs a cluster that fails over",
}

// Every row is tried or accounted for, and nothing is listed that is not.
func TestEveryRowIsAccountedFor(t *testing.T) {
	for _, id := range catalog {
		_, elsewhere := notHere[id]
		if slices.Contains(here, id) == elsewhere {
			t.Errorf("%s must stand in exactly one of here and notHere", id)
		}
	}
	for _, id := range here {
		if !slices.Contains(catalog, id) {
			t.Errorf("%s is no row", id)
		}
	}
	for id, why := range notHere {
		if !slices.Contains(catalog, id) || why == "" {
			t.Errorf("%s is no row, or has no reason", id)
		}
	}
}

// complete asserts, at the end of a test that was not filtered, that the rows of a letter ran.
func complete(t *testing.T, letter string) {
	t.Helper()
	for _, id := range here {
		if id[:1] == letter && !ran[id] {
			t.Errorf("%s stands in the table of rows that run here and did not run", id)
		}
	}
}
