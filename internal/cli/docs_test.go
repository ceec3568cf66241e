package cli

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
)

// docs/exit-codes.md lists every code beside its status, and no other.
func TestExitCodesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/exit-codes.md")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{string(codeLocal): ExitFailure, string(codeNoFile): codeNoFile.exit(), string(codePerm): codePerm.exit()}
	for _, c := range protocol.Codes {
		want[string(c)] = c.ExitCode()
	}
	row := regexp.MustCompile(`^\| (\d+) \| ?([^|]*?) ?\|`)
	statuses := map[int]bool{}
	for line := range strings.Lines(string(b)) {
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		status, _ := strconv.Atoi(m[1])
		statuses[status] = true
		for name := range strings.SplitSeq(m[2], ", ") {
			name = strings.Trim(name, "` ")
			if name == "" {
				continue
			}
			if have, ok := want[name]; !ok || have != status {
				t.Errorf("code %s stands at status %d, want %d (known: %v)", name, status, have, ok)
			}
			delete(want, name)
		}
	}
	if len(want) != 0 {
		t.Errorf("not documented: %v", want)
	}
	for _, status := range []int{0, 3, 4, ExitConfig} {
		if !statuses[status] {
			t.Errorf("status %d is not documented", status)
		}
	}
}
