package daemon

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sample() Service {
	data := "/var/lib/fairlead-agent"
	if os.PathSeparator == '\\' {
		data = `C:\ProgramData\Fairlead\fairlead-agent`
	}
	return Service{
		Name: "fairlead-agent", DisplayName: "Fairlead agent", Description: "Fairlead agent: 100% outbound", Verb: "run", NeedsConfig: true,
		Executable: "/opt/fair lead/fairlead-agent", Args: []string{"run", "--config", "/etc/fairlead/agent.yaml", "--data", data}, DataDir: data,
	}
}

func TestDrainTimeIsGivenAndThenCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sample()
		s.Drain = 5 * time.Second
		ctx, cancel := context.WithCancel(t.Context())
		var left []time.Duration
		stopping := func(d time.Duration) { left = append(left, d) }

		slow := func(ctx context.Context, ready func()) error { // within the drain time
			ready()
			<-ctx.Done()
			<-time.After(3500 * time.Millisecond)
			return errors.New("its own end")
		}
		isReady := false
		time.AfterFunc(time.Minute, cancel)
		if err := s.supervise(ctx, slow, func() { isReady = true }, stopping); err == nil || err.Error() != "its own end" {
			t.Errorf("err %v", err)
		}
		if !isReady || len(left) != 4 || left[0] != 5*time.Second || left[3] != 2*time.Second {
			t.Errorf("ready %v, told %v", isReady, left)
		}

		release := make(chan struct{})
		stuck := func(context.Context, func()) error { <-release; return nil }
		begin := time.Now()
		err := s.supervise(ctx, stuck, func() {}, func(time.Duration) {})
		if cli.ExitStatus(err) != protocol.CodeTimeout.ExitCode() || time.Since(begin) != 5*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		close(release)
	})
}

func TestCheckRefusesBadServices(t *testing.T) {
	if s := sample(); os.PathSeparator == '/' {
		if err := s.check(); err != nil {
			t.Fatal(err)
		}
	}
	for what, change := range map[string]func(*Service){
		"no name":             func(s *Service) { s.Name = "" },
		"name with a slash":   func(s *Service) { s.Name = "../x" },
		"name like a flag":    func(s *Service) { s.Name = "-x" },
		"line break":          func(s *Service) { s.Description = "a\nExecStart=/bin/sh" },
		"line break in args":  func(s *Service) { s.Args = []string{"run\nUser=root"} },
		"relative data":       func(s *Service) { s.DataDir = "data" },
		"the root as data":    func(s *Service) { s.DataDir = "/" },
		"relative executable": func(s *Service) { s.Executable = "fairlead-agent" },
	} {
		s := sample()
		change(&s)
		if err := s.check(); cli.ExitStatus(err) != 64 {
			t.Errorf("%s: %v", what, err)
		}
	}
}
