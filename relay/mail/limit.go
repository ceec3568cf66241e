package mail

import (
	"time"

	"github.com/fairleadhq/fairlead/protocol"
)

const hour = time.Hour

// RuleLimit names the refusal of more e-mail than may go.
const RuleLimit = "mail.limit"

// window is what went within the last hour: codes of a workspace, codes to a recipient, notices of a kind to a recipient, or notices of a
// kind that somebody caused. Notices to one person are counted with no others: whatever anybody does to others, or in other ways, must not
// silence them. Nor may who has the same address: nobody proved that it is theirs.
type window struct {
	workspace, recipient string // a person's id, or the address of who has none yet; "": the whole workspace's, or the actor's
	notice               Notice // "": codes
	actor                string
}

// limits count messages. Callers hold the outbox's lock.
type limits struct {
	of    map[window][]time.Time // the oldest first
	swept time.Time
}

// room tells how long to wait until one more may go; 0: now.
func (l *limits) room(w window, most int, now time.Time) time.Duration {
	times := l.of[w]
	for len(times) > 0 && now.Sub(times[0]) >= hour {
		times = times[1:]
	}
	if len(times) == 0 {
		delete(l.of, w)
	} else {
		l.of[w] = times
	}
	if len(times) < most {
		return 0
	}
	return times[len(times)-most].Add(hour).Sub(now)
}

// take counts one in each window.
func (l *limits) take(now time.Time, ws ...window) {
	if now.Sub(l.swept) >= hour { // of who never comes again
		for w, times := range l.of {
			if now.Sub(times[len(times)-1]) >= hour {
				delete(l.of, w)
			}
		}
		l.swept = now
	}
	for _, w := range ws {
		l.of[w] = append(l.of[w], now)
	}
}

// back takes one that was counted at a time out again.
func (l *limits) back(at time.Time, ws ...window) {
	for _, w := range ws {
		times := l.of[w]
		for i := range times {
			if times[i].Equal(at) {
				times = append(times[:i:i], times[i+1:]...)
				break
			}
		}
		if l.of[w] = times; len(times) == 0 {
			delete(l.of, w)
		}
	}
}

func limited(wait time.Duration) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Rule: RuleLimit, Message: "the relay refuses: as many e-mails went in the last hour as may, of the workspace or to this person",
		Hint: "wait, or give the code in another way (--show-code); the relay's operator can raise mail.per_workspace and mail.per_recipient", RetryAfterMs: wait.Milliseconds()}
}

func tooManyChanges(wait time.Duration) *protocol.Error {
	return &protocol.Error{Code: protocol.CodeRateLimited, Origin: protocol.OriginRelay, Rule: RuleLimit, Message: "the relay refuses: you did this to as many people in the last hour as they may be told of, and who is not told cannot object",
		Hint: "wait; the relay's operator can raise mail.per_workspace", RetryAfterMs: wait.Milliseconds()}
}

func full() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginRelay, Message: "too many e-mails wait to be sent", Hint: "give the code in another way (--show-code); the relay's operator should look whether its mail server takes mail"}
}

func noRoomToTell() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeUnavailable, Origin: protocol.OriginRelay, Message: "the relay refuses: too many e-mails wait to be sent, and who is not told of this cannot object",
		Hint: "wait; the relay's operator should look whether its mail server takes mail; to disable the user is possible at any time"}
}

func unusable() *protocol.Error {
	return protocol.Errorf(protocol.CodeInvalid, "the e-mail address is not usable")
}
