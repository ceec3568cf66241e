package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type policyCommands struct {
	Show policyShow `cmd:"" help:"Show what is demanded of who signs in."`
	Set  policySet  `cmd:"" help:"Change what is given; the rest stays. Sessions that it does not admit end at once."`
}

type policyShow struct{ cli.Output }

func (*policyShow) Examples() []string { return []string{"fairlead sign-in-policy show"} }

func (k *policyShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	p, err := c.SignInPolicy(ctx)
	if err != nil {
		return err
	}
	return k.print(t, p)
}

func (k *policyShow) print(t *cli.Term, p client.SignInPolicy) error {
	if k.JSON() {
		return t.JSON(struct {
			client.SignInPolicy
			ETag string `json:"etag,omitempty"`
		}{p, p.ETag})
	}
	for _, line := range policyLines(p) {
		t.Printf("%-20s %s\n", line.name+":", cli.Clean(line.text))
	}
	return nil
}

// policyLine is a demand of a policy in words. strength is the greater, the more it demands.
type policyLine struct {
	name, text string
	strength   int64
}

func policyLines(p client.SignInPolicy) []policyLine {
	unless := func(zero bool, text string) string {
		if zero {
			return "no"
		}
		return text
	}
	life := func(s int64) string { return (time.Duration(s) * time.Second).String() }
	demanded := int64(0)
	if p.SecondFactor {
		demanded = 1
	}
	keys := cmp.Or(p.Passkeys, "allowed")
	expiry := -int64(p.MaxAgeDays)
	if p.MaxAgeDays == 0 { // never is later than any day
		expiry = -1 << 32
	}
	return []policyLine{
		{"second factor", unless(!p.SecondFactor, "demanded of everybody"), demanded},
		{"passkeys", keys, map[string]int64{"off": 0, "allowed": 1, "required": 2}[keys]},
		{"least length", fmt.Sprintf("%d characters", p.MinLength), int64(p.MinLength)},
		{"kinds of characters", unless(p.Classes < 2, fmt.Sprintf("%d of 4", p.Classes)), int64(max(p.Classes, 1))},
		{"expiry", unless(p.MaxAgeDays == 0, fmt.Sprintf("after %d days", p.MaxAgeDays)), expiry},
		{"history", unless(p.History == 0, fmt.Sprintf("the last %d may not come back", p.History)), int64(p.History)},
		{"idle session ends", "after " + life(p.IdleSeconds), -p.IdleSeconds},
		{"any session ends", "after " + life(p.AbsoluteSeconds), -p.AbsoluteSeconds},
		{"a proof is fresh", "for " + life(p.StepUpSeconds), -p.StepUpSeconds},
		{"personal tokens", unless(p.PersonalTokenSeconds == 0, "for "+life(p.PersonalTokenSeconds)), -p.PersonalTokenSeconds},
	}
}

type policySet struct {
	SecondFactor     *bool     `negatable:"" help:"Demand a second factor of everybody who signs in, or of nobody; a passkey is one."`
	Passkeys         string    `enum:",allowed,required,off" default:"" placeholder:"allowed" help:"Passkeys: allowed, required of everybody, or off."`
	MinLength        *int      `placeholder:"N" help:"Least length of a password: 8 to 64."`
	Classes          *int      `placeholder:"N" help:"How many of small letters, capitals, digits and other characters a password must have; 0: it does not matter."`
	MaxAge           *int      `placeholder:"DAYS" help:"Days after which a password expires; 0: never."`
	History          *int      `placeholder:"N" help:"How many earlier passwords may not come back: up to 10."`
	Idle             *lifetime `placeholder:"1h" help:"A session that is not used for so long ends."`
	Absolute         *lifetime `placeholder:"12h" help:"Every session ends after this."`
	StepUp           *lifetime `placeholder:"5m" help:"How long a proof is fresh for dangerous acts."`
	PersonalTokens   *lifetime `placeholder:"30d" help:"Let people make API tokens of their own, of at most this life."`
	NoPersonalTokens bool      `help:"Let nobody make API tokens of their own."`
	Defaults         bool      `help:"Set nothing but the defaults."`
	Yes              bool      `short:"y" help:"Do not ask. Wanted for what demands less than before, where there is no terminal to ask on."`
	policyShow
	ifMatch
}

func (*policySet) Examples() []string {
	return []string{"fairlead sign-in-policy set --second-factor --idle 30m --absolute 8h", "fairlead sign-in-policy set --no-second-factor --yes", "fairlead sign-in-policy set --defaults"}
}

// overlay changes of p what was given, and tells whether anything was.
func (k *policySet) overlay(p *client.SignInPolicy) bool {
	was, given := *p, false
	for _, f := range []struct {
		to   *int
		from *int
	}{{&p.MinLength, k.MinLength}, {&p.Classes, k.Classes}, {&p.MaxAgeDays, k.MaxAge}, {&p.History, k.History}} {
		if f.from != nil {
			*f.to, given = *f.from, true
		}
	}
	for _, f := range []struct {
		to   *int64
		from *lifetime
	}{{&p.IdleSeconds, k.Idle}, {&p.AbsoluteSeconds, k.Absolute}, {&p.StepUpSeconds, k.StepUp}, {&p.PersonalTokenSeconds, k.PersonalTokens}} {
		if f.from != nil {
			*f.to, given = f.from.seconds(), true
		}
	}
	if k.NoPersonalTokens {
		p.PersonalTokenSeconds, given = 0, true
	}
	if k.Passkeys != "" {
		p.Passkeys, given = k.Passkeys, true
	}
	if k.SecondFactor != nil {
		p.SecondFactor, given = *k.SecondFactor, true
		// The length that is enough beside a second factor is not enough without one.
		if least := (client.SignInPolicy{SecondFactor: true}).InForce().MinLength; was.SecondFactor && !p.SecondFactor && k.MinLength == nil && was.MinLength == least {
			p.MinLength = 0
		}
	}
	return given
}

// Run reads the policy and replaces it only if nobody else did meanwhile.
func (k *policySet) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	switch {
	case k.overlay(&client.SignInPolicy{}) == k.Defaults:
		return cli.Usage("want settings, or --defaults alone: fairlead sign-in-policy set --second-factor")
	case k.PersonalTokens != nil && k.NoPersonalTokens:
		return cli.Usage("want --personal-tokens or --no-personal-tokens, not both")
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	var p client.SignInPolicy
	if !k.Defaults {
		if p, err = c.SignInPolicy(ctx); err != nil {
			return err
		}
		was := p
		k.overlay(&p)
		if err := k.sure(t, was, p.InForce()); err != nil {
			return err
		}
		if k.IfMatch == "" {
			k.IfMatch = was.ETag
		}
	}
	if p, err = k.on(c).SetSignInPolicy(ctx, p); err != nil {
		return err
	}
	return k.print(t, p)
}

// sure shows what changes, and asks before anything demands less than it did.
func (k *policySet) sure(t *cli.Term, was, now client.SignInPolicy) error {
	var less []string
	same := true
	next := policyLines(now)
	for i, old := range policyLines(was) {
		if old.text == next[i].text {
			continue
		}
		same = false
		t.Notef("%s: %s -> %s\n", old.name, cli.Clean(old.text), cli.Clean(next[i].text))
		if next[i].strength < old.strength {
			less = append(less, old.name)
		}
	}
	switch {
	case same:
		t.Notef("nothing changes\n")
		return nil
	case len(less) == 0 || k.Yes:
		return nil
	case !cli.IsTerminal(t.In):
		return cli.Usage("nothing was done: this demands less than before (%s), and there is no terminal to ask on; give --yes", strings.Join(less, ", "))
	}
	return confirm(t, "This demands less than before ("+strings.Join(less, ", ")+"). Set it?", false)
}
