package e2e_test

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/testenv/servers"
)

func TestMain(m *testing.M) {
	os.Exit(servers.Main(m, removePrograms, func() int {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}))
}
