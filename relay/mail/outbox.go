package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
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
	of     map[string]*share
	served int64 // letters taken for a try
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

// share is what a workspace has of the outbox.
type share struct {
	held int
	last int64 // of all letters that were taken for a try, its newest
}

// letter is a message with its recipient.
type letter struct {
	Message
	of, to string    // workspace and recipient
	first  time.Time // zero: never tried
	due    time.Time
	wait   time.Duration // until the next try
	why    string        // the last one failed
}

// New makes an outbox.
func New(c Config) (*Outbox, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Outbox{conf: c, wake: make(chan struct{}, 1), of: map[string]*share{}, lim: limits{of: map[window][]time.Time{}}, states: map[string]*told{}}, nil
}

// Place is room for one message. It is used by one caller, who calls Send, Tell or Release; nil is a place that nobody needs.
type Place struct {
	o  *Outbox
	of string
	to string // of a code
	at time.Time
	ws []window
}

// Reserve takes room for a code before that which the message tells of is done (rate_limited, unavailable): afterwards it cannot
// be refused. Release is for when it was not done. person is the recipient's id; "" for who is new, whom the address alone names.
func (o *Outbox) Reserve(workspace, person, to string) (*Place, error) {
	return o.reserve(workspace, person, to, "")
}

func (o *Outbox) reserve(workspace, who, to string, n Notice) (*Place, error) {
	to, err := Address(to)
	if err != nil {
		return nil, unusable()
	}
	now := time.Now()
	person := window{workspace: workspace, recipient: cmp.Or(who, strings.ToLower(to)), notice: n}
	ws := []window{person}
	o.mu.Lock()
	defer o.mu.Unlock()
	wait := o.lim.room(person, o.conf.PerRecipient, now)
	if n == "" {
		all := window{workspace: workspace}
		ws, wait = append(ws, all), max(wait, o.lim.room(all, o.conf.PerWorkspace, now))
	}
	if wait > 0 {
		o.counts.Limited++
		return nil, limited(wait)
	}
	if !o.hold(workspace) {
		o.counts.Limited++
		return nil, full()
	}
	o.lim.take(now, ws...)
	return &Place{o: o, of: workspace, to: to, at: now, ws: ws}, nil
}

// hold takes a place for a workspace; false when there is none. One has no more than its share, and as long as it holds few it has room
// whatever others do. o.mu is held.
func (o *Outbox) hold(workspace string) bool {
	s := o.of[workspace]
	if s == nil {
		s = &share{}
	}
	if s.held >= o.conf.Share || o.held >= o.conf.Queue && s.held >= o.conf.Least {
		return false
	}
	s.held++
	o.held++
	o.of[workspace] = s
	return true
}

// let gives a workspace's place back. o.mu is held.
func (o *Outbox) let(workspace string) {
	o.held--
	if s := o.of[workspace]; s != nil {
		if s.held--; s.held == 0 {
			delete(o.of, workspace)
		}
	}
}

// Send queues the message; one that waits for the same person is dropped, since its code counts no more. Whether it arrives is told by State.
func (p *Place) Send(m Message) {
	o, now := p.o, time.Now()
	o.mu.Lock()
	l := &letter{Message: m, of: p.of, to: p.to, due: now, wait: o.conf.Retry}
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
	o.queue = slices.DeleteFunc(o.queue, func(l *letter) bool {
		if person == "" || l.Person != person {
			return false
		}
		o.let(l.of)
		return true
	})
	return len(o.queue) < n
}

// Release gives the room back.
func (p *Place) Release() {
	if p == nil {
		return
	}
	p.o.mu.Lock()
	defer p.o.mu.Unlock()
	p.o.let(p.of)
	p.o.lim.back(p.at, p.ws...)
}

// Tell queues a notice to a person, by id. One that finds no room is counted and logged, and the error says why; what it tells of is done.
func (o *Outbox) Tell(workspace, person, to string, m Message) error {
	p, err := o.reserve(workspace, person, to, m.Notice)
	if err != nil {
		return o.untold(workspace, m, err)
	}
	p.Send(m)
	return nil
}

func (o *Outbox) untold(workspace string, m Message, err error) error {
	o.conf.Logger.Warn("a notice by e-mail was not sent", "workspace", workspace, "notice", m.Notice, "error", err)
	return err
}

// Tell is the Outbox's for what Act gave the place for: there is room.
func (p *Place) Tell(person, to string, m Message) error {
	o, w, now := p.o, window{workspace: p.of, recipient: person, notice: m.Notice}, time.Now()
	to, err := Address(to)
	if err != nil {
		err = unusable()
	}
	o.mu.Lock()
	if wait := o.lim.room(w, o.conf.PerRecipient, now); err == nil && wait > 0 {
		o.counts.Limited++
		err = limited(wait)
	}
	if err != nil {
		o.let(p.of)
	} else {
		o.lim.take(now, w)
	}
	o.mu.Unlock()
	if err != nil {
		return o.untold(p.of, m, err)
	}
	p.to = to
	p.Send(m)
	return nil
}

// Act counts what somebody is about to do to another's account, of which that one is told, and takes the room for telling. It refuses
// what is more than PerWorkspace in an hour (rate_limited), and what finds no room (unavailable): else nothing would bound how many are
// told, or a bound would silence what comes then. Release is for when it was not done.
func (o *Outbox) Act(workspace, actor string, n Notice) (*Place, error) {
	w, now := window{workspace: workspace, notice: n, actor: actor}, time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if wait := o.lim.room(w, o.conf.PerWorkspace, now); wait > 0 {
		o.counts.Limited++
		return nil, tooManyChanges(wait)
	}
	if !o.hold(workspace) {
		o.counts.Limited++
		return nil, noRoomToTell()
	}
	o.lim.take(now, w)
	return &Place{o: o, of: workspace, at: now, ws: []window{w}}, nil
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

// next takes a letter that is due, of the workspace that was served least lately, or tells how long until one is.
func (o *Outbox) next() (*letter, time.Duration) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	first := -1
	for i, l := range o.queue {
		if first < 0 || o.before(l, o.queue[first], now) {
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
	o.served++
	o.of[l.of].last = o.served
	if len(o.queue) > 0 {
		o.stir() // for another worker
	}
	return l, 0
}

// before tells which of two letters goes first: of those that are due, that of the workspace whose turn is longer ago. o.mu is held.
func (o *Outbox) before(a, b *letter, now time.Time) bool {
	last := func(l *letter) int64 { return o.of[l.of].last }
	if !a.due.After(now) && !b.due.After(now) && last(a) != last(b) {
		return last(a) < last(b)
	}
	return a.due.Before(b.due)
}

// deliver is the Config's, of which a panic costs this letter alone.
func (o *Outbox) deliver(ctx context.Context, l *letter) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// The letter fails, the relay lives. The value may hold an address or the text, so only its type.
			o.conf.Logger.Error("sending an e-mail panicked", "panic", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			err = &Fault{Step: Inside, Final: true, Cause: errors.New("a panic")}
		}
	}()
	return o.conf.deliver(ctx, l.to, l.Message, func(Step) {})
}

// try delivers a letter, and judges what came of it.
func (o *Outbox) try(ctx context.Context, l *letter) {
	if l.first.IsZero() {
		l.first = time.Now()
	}
	var err error
	old := l.old(time.Now(), o.conf.GiveUp)
	if !old {
		err = o.deliver(ctx, l)
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
	o.let(l.of)
	o.tell(l, s)
}

// old tells whether a letter is of no use any more, or was tried for long enough.
func (l *letter) old(now time.Time, giveUp time.Duration) bool {
	return !l.Until.IsZero() && !now.Before(l.Until) || now.Sub(l.first) >= giveUp
}
