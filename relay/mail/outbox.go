package mail

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

// States of a person's last code.
const (
	Waiting = "waiting"
	Sent    = "sent"
	Failed  = "failed"
)

// State is what became of a person's last code. It is kept in memory: the zero State says that nothing was sent since the relay began.
type State struct {
	Is   string
	When time.Time // since when
	Why  string    // the step that failed; no address, nothing of the text
}

// Counts are of messages since the relay began, but for Waiting, which is of now.
type Counts struct {
	Waiting                                int
	Sent, Failed, Expired, Limited, Undone int64
	Retried                                int64 // tries after which the message waits on
}

// Outbox holds messages until the server has them. Safe for concurrent use; Run must run beside it.
type Outbox struct {
	conf Config
	wake chan struct{} // holds one when there may be something to do

	mu     sync.Mutex // guards the fields below
	held   int        // places given away: reserved, waiting or under way
	queue  []*letter
	lim    limits
	states map[string]*told // by person
	order  []string         // of states, the oldest first
	counts Counts
}

// told is the State of a person, and the letter that it is about.
type told struct {
	State
	of *letter
}

// letter is a message with its recipient.
type letter struct {
	Message
	to    string
	first time.Time // zero: never tried
	due   time.Time
	wait  time.Duration // until the next try
	why   string        // the last one failed
}

// New makes an outbox.
func New(c Config) (*Outbox, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Outbox{conf: c, wake: make(chan struct{}, 1), lim: limits{of: map[window][]time.Time{}}, states: map[string]*told{}}, nil
}

// Place is room for one message. It is used by one caller, who calls Send or Release.
type Place struct {
	o  *Outbox
	to string
	at time.Time
	ws []window
}

// Reserve takes room for a message before that which the message tells of is done (rate_limited, unavailable): afterwards it cannot
// be refused. Release is for when it was not done.
func (o *Outbox) Reserve(workspace, to string) (*Place, error) {
	return o.reserve(workspace, to, false)
}

func (o *Outbox) reserve(workspace, to string, notice bool) (*Place, error) {
	to, err := Address(to)
	if err != nil {
		return nil, protocol.Errorf(protocol.CodeInvalid, "the e-mail address is not usable")
	}
	now := time.Now()
	ws := []window{{workspace: workspace, notice: notice}, {workspace: workspace, recipient: strings.ToLower(to), notice: notice}}
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, most := range []int{o.conf.PerWorkspace, o.conf.PerRecipient} {
		if wait := o.lim.room(ws[i], most, now); wait > 0 {
			o.counts.Limited++
			return nil, limited(wait)
		}
	}
	if o.held >= o.conf.Queue {
		o.counts.Limited++
		return nil, full()
	}
	o.held++
	o.lim.take(now, ws...)
	return &Place{o: o, to: to, at: now, ws: ws}, nil
}

// Send queues the message; one that waits for the same person is dropped, since its code counts no more. Whether it arrives is told by State.
func (p *Place) Send(m Message) {
	o, now := p.o, time.Now()
	o.mu.Lock()
	l := &letter{Message: m, to: p.to, due: now, wait: o.conf.Retry}
	o.drop(m.Person)
	o.queue = append(o.queue, l)
	o.about(l)
	o.tell(l, State{Is: Waiting, When: now})
	o.mu.Unlock()
	o.stir()
}

// Drop takes a code that waits out of the queue: it counts no more, or its person has another address.
func (o *Outbox) Drop(person string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.drop(person) {
		delete(o.states, person)
		o.order = slices.DeleteFunc(o.order, func(p string) bool { return p == person })
	}
}

func (o *Outbox) drop(person string) bool {
	n := len(o.queue)
	if person != "" {
		o.queue = slices.DeleteFunc(o.queue, func(l *letter) bool { return l.Person == person })
	}
	o.held -= n - len(o.queue)
	return len(o.queue) < n
}

// Release gives the room back.
func (p *Place) Release() {
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	p.o.held--
	p.o.lim.back(p.at, p.ws...)
}

// Tell queues a notice. One that finds no room is counted and logged, and nobody waits for it: what it tells of is done.
func (o *Outbox) Tell(workspace, to string, m Message) {
	p, err := o.reserve(workspace, to, true)
	if err != nil {
		o.conf.Logger.Warn("a notice by e-mail was not sent", "workspace", workspace, "error", err)
		return
	}
	p.Send(m)
}

// State tells what became of the last code of a person, by id.
func (o *Outbox) State(person string) State {
	o.mu.Lock()
	defer o.mu.Unlock()
	if t := o.states[person]; t != nil {
		return t.State
	}
	return State{}
}

// Counts tells of all messages.
func (o *Outbox) Counts() Counts {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.counts
	c.Waiting = o.held
	return c
}

// about makes a letter the one that its person's State tells of.
func (o *Outbox) about(l *letter) {
	if l.Person == "" {
		return
	}
	if o.states[l.Person] == nil {
		if o.order = append(o.order, l.Person); len(o.order) > o.conf.Kept {
			delete(o.states, o.order[0])
			o.order = o.order[1:]
		}
	}
	o.states[l.Person] = &told{of: l}
}

// tell changes the State that a letter is about, unless there is a later letter.
func (o *Outbox) tell(l *letter, s State) {
	if t := o.states[l.Person]; t != nil && t.of == l {
		t.State = s
	}
}

func (o *Outbox) stir() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run sends what is queued until ctx ends. What waits then is lost: the log says how many, and an admin gives new codes.
func (o *Outbox) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for range o.conf.Workers {
		wg.Go(func() { o.work(ctx) })
	}
	wg.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.queue); n > 0 {
		o.conf.Logger.Warn("e-mails that waited to be sent are lost, for the relay stops; give the people new codes", "messages", n)
		o.counts.Undone += int64(n)
	}
}

func (o *Outbox) work(ctx context.Context) {
	for ctx.Err() == nil {
		l, wait := o.next()
		if l != nil {
			o.try(ctx, l)
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-o.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// next takes the letter that is due first, or tells how long until one is.
func (o *Outbox) next() (*letter, time.Duration) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	first := -1
	for i, l := range o.queue {
		if first < 0 || l.due.Before(o.queue[first].due) {
			first = i
		}
	}
	if first < 0 {
		return nil, hour
	}
	l := o.queue[first]
	if wait := l.due.Sub(now); wait > 0 {
		return nil, wait
	}
	o.queue = append(o.queue[:first], o.queue[first+1:]...)
	if len(o.queue) > 0 {
		o.stir() // for another worker
	}
	return l, 0
}

// try delivers a letter, and judges what came of it.
func (o *Outbox) try(ctx context.Context, l *letter) {
	if l.first.IsZero() {
		l.first = time.Now()
	}
	var err error
	old := l.old(time.Now(), o.conf.GiveUp)
	if !old {
		err = o.conf.deliver(ctx, l.to, l.Message, func(Step) {})
	}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	f := (*Fault)(nil)
	errors.As(err, &f)
	switch {
	case !old && f == nil:
		o.counts.Sent++
		o.end(l, State{Is: Sent, When: now})
	case old:
		o.counts.Expired++
		o.conf.Logger.Warn("an e-mail was given up: it was not taken in time", "last", l.why)
		o.end(l, State{Is: Failed, When: now, Why: strings.TrimSuffix("it was not taken in time: "+l.why, ": ")})
	case f.Final:
		o.counts.Failed++
		o.conf.Logger.Warn("an e-mail was refused for good", "step", f.Step, "code", f.Code)
		o.end(l, State{Is: Failed, When: now, Why: f.Error()})
	default:
		l.due, l.wait = now.Add(l.wait), min(2*l.wait, o.conf.MaxWait)
		o.counts.Retried++
		if ctx.Err() == nil {
			o.conf.Logger.Warn("an e-mail could not be sent; trying again", "step", f.Step, "code", f.Code, "in", l.due.Sub(now))
		}
		l.why = f.Error()
		o.tell(l, State{Is: Waiting, When: now, Why: l.why})
		o.queue = append(o.queue, l)
	}
}

// end is for a letter that is tried no more.
func (o *Outbox) end(l *letter, s State) {
	o.held--
	o.tell(l, s)
}

// old tells whether a letter is of no use any more, or was tried for long enough.
func (l *letter) old(now time.Time, giveUp time.Duration) bool {
	return !l.Until.IsZero() && !now.Before(l.Until) || now.Sub(l.first) >= giveUp
}
