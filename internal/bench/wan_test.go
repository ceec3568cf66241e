package bench

import (
	"bytes"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/wan"
)

// TestAStallCountsForAsLongAsItLasts: pings are sent by the clock. Were each sent after the answer of the one before, a stall
// would be one slow ping among many quick ones.
func TestAStallCountsForAsLongAsItLasts(t *testing.T) {
	const interval, stall = 10 * time.Millisecond, 400 * time.Millisecond
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		b := make([]byte, 2)
		if _, err := io.ReadFull(c, b); err != nil { // the mode, and the first byte that opens the way
			t.Error(err)
			return
		}
		_, _ = c.Write(b[1:])
		if wait(t.Context(), stall) == nil {
			_, _ = io.Copy(struct{ io.Writer }{c}, c)
		}
	})
	took, err := paced(t.Context(), ln.Addr().String(), interval, stall)
	if err != nil {
		t.Fatal(err)
	}
	if len(took) != int(stall/interval) {
		t.Fatalf("%d pings of %d", len(took), stall/interval)
	}
	// The pings that were due in the first half of the stall waited for its second half at least.
	slow := 0
	for _, x := range took {
		if x > (stall/2).Seconds()*0.9 {
			slow++
		}
	}
	if slow < len(took)/3 {
		t.Errorf("a stall of %s counts in %d of %d pings: %v", stall, slow, len(took), took)
	}
}

func TestNoLineWithoutItsNamespace(t *testing.T) {
	if os.Getenv(labEnv) != "" {
		t.Skip("make lab runs it in one")
	}
	o := Quick()
	o.Bin, o.Self, o.Dir, o.WAN = t.TempDir(), []string{os.Args[0]}, t.TempDir(), true
	for _, name := range []string{"fairlead", "fairlead-agent", "fairlead-relay"} {
		if err := os.WriteFile(o.Bin+"/"+name+exeSuffix, nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if wan.Isolated() {
		t.Fatal("the test runs in a namespace of its own")
	}
	if _, err := Run(t.Context(), o); err == nil {
		t.Error("it measures over a line where there is none")
	}
}

// TestTargetsOfOneCongestionControlAreHeldThereAlone: what is promised with cubic is no promise about others.
func TestTargetsOfOneCongestionControlAreHeldThereAlone(t *testing.T) {
	r := &Report{Options: map[string]any{"congestion": "cubic"}, Machine: map[string]string{}, Systems: []SystemInfo{{Name: sysDirect}, {Name: sysGateway}},
		Samples: []Sample{{Rep: 1, Cell: "wan_down8_loss", System: sysDirect, Stranger: -1, Values: map[string]float64{"wan_down8_loss": 4}},
			{Rep: 1, Cell: "wan_down8_loss", System: sysGateway, Stranger: -1, Values: map[string]float64{"wan_down8_loss": 3.9}}}}
	for congestion, said := range map[string]bool{"cubic": true, "bbr": false} {
		r.Options["congestion"] = congestion
		var out bytes.Buffer
		if err := r.Print(&out); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "≥ 0.95 × direct: met (0.97)"); got != said {
			t.Errorf("with %s the target is said: %v\n%s", congestion, got, &out)
		}
	}
}
