package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

// Run does fn's work until it returns or ctx ends, and then for the drain time at most. Under the service control
// manager the stop, shutdown and pre-shutdown controls end the context, the manager hears of progress every second, and
// fn's error becomes a failure that the recovery actions answer. An error that says that the drain time was overrun means
// that fn still runs: end the process.
//
// kardianos/service is not used for this: it cannot see the manager in containers and under Wine (golang/go#56335), runs
// the stop inside the handler without checkpoints, and gives no exit status to the manager.
func (s Service) Run(ctx context.Context, fn RunFunc) error {
	managed, err := svc.IsWindowsService()
	if err != nil {
		return fmt.Errorf("ask whether this is a service: %w", err)
	}
	if !managed && !s.Managed {
		return s.supervise(ctx, fn, func() {}, func(time.Duration) {})
	}
	h := &handler{service: s, ctx: ctx, fn: fn}
	if err := svc.Run(s.Name, h); err != nil {
		return fmt.Errorf("connect to the service control manager: %w", err)
	}
	return h.err
}

type handler struct {
	service Service
	ctx     context.Context
	fn      RunFunc
	err     error
}

// Execute implements svc.Handler.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, changes chan<- svc.Status) (specific bool, status uint32) {
	const accepts = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown | svc.AcceptParamChange
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	ready, left, done := make(chan struct{}), make(chan time.Duration, 1), make(chan error, 1)
	isReady := sync.OnceFunc(func() { close(ready) })
	go func() {
		done <- h.service.supervise(ctx, h.fn, isReady, func(d time.Duration) {
			select {
			case left <- d:
			default:
			}
		})
	}()
	reloads := make(chan struct{}, 1)
	go func() {
		for range reloads {
			h.service.Reload()
		}
	}()
	defer close(reloads)

	now := svc.Status{State: svc.StartPending, CheckPoint: 1, WaitHint: 30_000}
	changes <- now
	tick := time.NewTicker(2 * time.Second) // while starting
	defer tick.Stop()
	for {
		select {
		case <-ready:
			ready = nil
			if now.State == svc.StartPending {
				now = svc.Status{State: svc.Running, Accepts: accepts}
				changes <- now
			}
		case <-tick.C:
			if now.State == svc.StartPending {
				now.CheckPoint++
				changes <- now
			}
		case d := <-left:
			now = svc.Status{State: svc.StopPending, CheckPoint: now.CheckPoint + 1, WaitHint: uint32(min(d, 5*time.Second)/time.Millisecond) + 2000}
			changes <- now
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				changes <- now
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				cancel()
			case svc.ParamChange:
				if h.service.Reload != nil {
					select {
					case reloads <- struct{}{}:
					default:
					}
				}
			}
		case h.err = <-done:
			changes <- svc.Status{State: svc.StopPending, CheckPoint: now.CheckPoint + 1, WaitHint: 2000}
			if h.err == nil {
				return false, 0
			}
			if log, err := eventlog.Open(h.service.Name); err == nil {
				_ = log.Error(1, h.service.Name+" ended: "+h.err.Error())
				_ = log.Close()
			}
			return true, 1
		}
	}
}
