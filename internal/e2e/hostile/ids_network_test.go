//go:build linux

package hostile_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// network are the rows of 4.D (tunnel, mTLS, enrolment), and of the fault catalog those about dead and stopped programs,
// clocks and certificates, the network, and storms. Numbers that are missing here were never given out, or belong to disks,
// dependencies and configuration, which the packages that hold those test.
var network = []string{
	"D1", "D2", "D5", "D6", "D7", "D8", "D9", "D10", "D11", "D13", "D14", "D16", "D17", "D18", "D19", "D20", "D22", "D23", "D24", "D25", "D26", "D27", "D28", "D29", "D30", "D31",
	"Z1", "Z2", "Z5", "Z6", "Z8", "Z9", "Z10", "Z13",
	"Z22", "Z23", "Z24", "Z25", "Z26", "Z27", "Z28",
	"Z29", "Z30", "Z31", "Z32", "Z34", "Z35", "Z36", "Z37", "Z38", "Z39", "Z41",
	"Z42", "Z43", "Z44", "Z45", "Z46", "Z47", "Z48",
}

const self = "internal/e2e/hostile"

// heldBy names the tests of each row. Those with a "/" after their name have subtests, or cases, that begin with its id.
var heldBy = map[string][]string{
	"D1":  {"internal/mtls TestRelayRefusesAgent/", "internal/mtls TestAgentRefusesRelay/", "relay/enroll TestRequestsRefused/", self + " TestHostileAgent/"},
	"D2":  {"internal/mtls TestRelayRefusesAgent/", "relay/enroll TestSignAgentRefuses/", self + " TestHostileAgent/", self + " TestHostileRelayAndMiddle/"},
	"D5":  {"internal/mtls TestRevokedIsRefused/", "internal/e2e TestRogueAgentGetsNoFurtherThanItself/", "relay/enroll TestKeyReuseIsSeen", self + " TestHostileAgent/"},
	"D6":  {"internal/mtls TestNoResumption", self + " TestHostileAgent/"},
	"D7":  {"internal/tunnel TestMuxHandshakeStall/", "relay TestSlowEnrolmentsDoNotHoldUpOthers", self + " TestHostileAgent/"},
	"D8":  {self + " TestHostileAgent/"},
	"D9":  {"internal/mtls TestEnrollPin/", "internal/tunnel TestDialRefusals", "internal/e2e TestJoinTokenCountsOnce/", self + " TestHostileRelayAndMiddle/"},
	"D10": {"relay/store TestJoinTokenIsConsumedOnce/", "relay/directory TestD10JoinTokenRaceHasOneWinner", "internal/e2e TestJoinTokenCountsOnce/", self + " TestHostileAgent/"},
	"D11": {"relay/enroll TestHostileRequestIsStripped/", "relay/enroll TestRequestsRefused/", "relay/enroll TestKeyReuseIsSeen", "internal/e2e TestRogueAgentGetsNoFurtherThanItself/"},
	"D13": {"internal/mtls TestAgentRefusesRelay/", self + " TestHostileRelayAndMiddle/"},
	"D14": {"internal/mtls TestKeypairFile", "internal/e2e TestRenewalsLoseNoRequest", self + " TestForgedRenewals", self + " TestHostileRelayAndMiddle/"},
	"D16": {"internal/tunnel TestBrokenFramesEndTheTunnel/", "internal/tunnel TestStrayFramesArePassedOver/", "internal/tunnel TestFloodsAreBounded/", self + " TestHostileAgent/", self + " TestHostileRelayAndMiddle/"},
	"D17": {"internal/tunnel TestFloodsAreBounded/", self + " TestStreamsThatAreNeverRead", self + " TestHostileAgent/"},
	"D18": {"internal/tunnel TestFloodsAreBoundedOverQUIC", "internal/tunnel TestHandshakesOverQUICAreBounded"}, // and go.mod's floor: its own frames belong to the library
	"D19": {"internal/websocket TestBrokenFramesAreRefused", "internal/websocket TestServerJudgesTheRequest", "relay TestWebSocketRouteIsGuardedByTheHandshakeInside", self + " TestHostileAgent/"},
	"D20": {"relay TestAgentRecordsAreTakenInOrderAndOnce", self + " TestHostileAgent/"},
	"D22": {"protocol TestMalformedRequestIsRefused/", self + " TestUnknownNotices"},
	"D23": {self + " TestHostileAgent/"},
	"D24": {"agent/uplink TestProxyRefusalsSayWhatToDo", "agent/uplink TestHostileProxyIsBounded", self + " TestHostileRelayAndMiddle/"},
	"D25": {self + " TestHostileAgent/"},
	"D26": {self + " TestHostileRelayAndMiddle/", self + " TestNames/"},
	"D27": {"internal/mtls TestRelayRefusesAgent/", "internal/mtls TestAgentRefusesRelay/", "internal/mtls TestEnrollPin/", self + " TestHostileAgent/"},
	"D28": {"internal/e2e TestRogueAgentGetsNoFurtherThanItself/", "relay/hub TestLaneWithoutItsTicketIsRefused", self + " TestHostileAgent/"},
	"D29": {"relay/enroll TestHostileRequestIsStripped/", self + " TestHostileAgent/"},
	"D30": {"relay/api TestBodyOfWhoMayNotIsNotRead/", "internal/e2e TestRogueAgentGetsNoFurtherThanItself/", self + " TestHostileAgent/"},
	"D31": {"internal/e2e TestRogueAgentGetsNoFurtherThanItself/", self + " TestAbsurdWelcomes"},

	"Z1":  {"internal/e2e TestKillCycles", "internal/e2e TestAgentComesBackAfterRelayRestart"},
	"Z2":  {"internal/e2e TestKillCycles", "internal/e2e TestKilledAgentCutsTransfers", "agent/connector/folder TestZ2SweepRemovesWhatAKilledAgentLeft"},
	"Z5":  {self + " TestNetworkFaults/"},
	"Z6":  {self + " TestNetworkFaults/"},
	"Z8":  {"agent TestPanicCostsOneStream"},
	"Z9":  {"internal/e2e TestStoppingAgentsLoseNoRequest", "internal/e2e TestStoppingRelayLosesNothingThatItLetIn", "agent TestDrainRefusesNewTripsAndCancelsLateOnes", self + " TestStops/"},
	"Z10": {"internal/cli TestSecondSignalEndsTheProcess", self + " TestStops/"},
	"Z13": {self + " TestNetworkFaults/"},
	"Z22": {"internal/tunnel TestTunnelEndsWithCertificate/", "internal/e2e TestCertificateIsRenewedWithOverlap"},
	"Z24": {"internal/mtls TestAgentRefusesRelay/", self + " TestHostileRelayAndMiddle/"},
	"Z28": {"relay/directory TestTokens"},
	"Z29": {"internal/tunnel TestPeerDeathIsSeen/", "internal/bench TestLabADeadLineIsFoundByBothEnds", self + " TestNetworkFaults/"},
	"Z30": {self + " TestNetworkFaults/"},
	"Z31": {"internal/bench TestLabATunnelOutlivesLossAndABlackOut"},
	"Z32": {"internal/bench TestLabATunnelOutlivesLossAndABlackOut", self + " TestNetworkFaults/"},
	"Z35": {"internal/tunnel TestSlowLineIsNotADeadOne/", "internal/bench TestLabAPingBesideBulkStaysQuick", self + " TestNetworkFaults/"}, // but for its 5 s: performance, not safety
	"Z36": {"agent/uplink TestAutoStaysOnTCPWhereUDPIsStopped", "agent/uplink TestAutoFallsBackWhenUDPDies"},
	"Z37": {"internal/e2e TestSlowCallersAreCut", "internal/tunnel TestMuxHandshakeStall"},
	"Z38": {self + " TestNames/"},
	"Z39": {self + " TestNetworkFaults/"},
	"Z41": {"relay/hub TestTunnelsOfAFlappingAgentDoNotPileUp", self + " TestNetworkFaults/"},
	"Z45": {"relay TestAnAgentOverItsRateOfRecordsIsSlowed", "internal/audit TestFeedPace"},
	"Z46": {"internal/tunnel TestFloodsAreBounded", self + " TestNetworkFaults/"},
	"Z47": {"relay/directory TestChangesAreInForceWhenTheyReturn"},
	"Z48": {"internal/bench TestASoakOfAMinute"},
}

// notHeld are the rows that no test here can show, or not with the catalog's figure, with the reason.
var notHeld = map[string]string{
	"Z23": "the root lives as long as its installation and does not change; that an agent's own change of certificate loses nothing is internal/e2e TestRenewalsLoseNoRequest",
	"Z25": "a process cannot be given another wall clock without setting the machine's; validity by the wall clock is internal/tunnel TestTunnelEndsWithCertificate, another clock from the start is Z24",
	"Z26": "needs a machine that sleeps: freezing a process does not stop the monotonic clock (Z5 and Z6 freeze both programs)",
	"Z27": "an installation has one relay",
	"Z34": "needs a line of its own with a small MTU, as root; over TCP it is the kernel's to find out",
	"Z42": "5000 agents are more than a test machine holds: a storm of handshakes is internal/tunnel TestMuxStormIsServed, full jitter and patience are agent/uplink",
	"Z43": "an installation has one relay",
	"Z44": "as Z42; that renewals keep a pace is relay TestRenewalsAreNotAHammer",
}

// TestEveryNetworkRowIsAccountedFor: each row has a test that exists, or a reason.
func TestEveryNetworkRowIsAccountedFor(t *testing.T) {
	for _, id := range network {
		if reason := notHeld[id]; (len(heldBy[id]) == 0) == (reason == "") {
			t.Errorf("%s must stand in exactly one of heldBy and notHeld", id)
		}
	}
	text := map[string]string{} // of the tests of each package
	for id, tests := range heldBy {
		if !slices.Contains(network, id) {
			t.Errorf("%s is no row", id)
		}
		named := regexp.MustCompile(`"(?:[DZ]\d+ )*` + id + `[ "]`)
		for _, test := range tests {
			pkg, name, ok := strings.Cut(test, " ")
			if text[pkg] == "" {
				text[pkg] = source(t, pkg)
			}
			name, labelled := strings.CutSuffix(name, "/")
			if !ok || !strings.Contains(text[pkg], "\nfunc "+name+"(t *testing.T) {") {
				t.Errorf("%s: %s does not exist", id, test)
			}
			if labelled && !named.MatchString(text[pkg]) {
				t.Errorf("%s: %s has no subtest of that name", id, test)
			}
		}
	}
	for id := range notHeld {
		if !slices.Contains(network, id) {
			t.Errorf("%s is no row", id)
		}
	}
}

// source is the text of a package's tests.
func source(t *testing.T, pkg string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "..", filepath.FromSlash(pkg), "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", pkg, err)
	}
	var b strings.Builder
	for _, f := range files {
		if filepath.Base(f) == "ids_network_test.go" {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString("\n")
		b.Write(text)
	}
	return b.String()
}
