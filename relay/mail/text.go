package mail

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
)

// Message is what goes to one person.
type Message struct {
	Subject string
	Text    secret.Bytes // lines end with \n
	Until   time.Time    // it is of no use after that; zero: always of use
	Person  string       // whose State tells of it; "": nobody's
	Notice  Notice       // what it tells of; "": it is a code
}

// Code is a one-time code on its way to the person.
type Code struct {
	Workspace, User string
	Code            secret.Bytes
	Until           time.Time
	Person          string // id
}

// Code makes the message that takes a one-time code to its person. Names of users and workspaces are plain (relay/directory), so that
// the command can be pasted as it is. The code stands in the link's fragment, which browsers send to
// nobody.
func (o *Outbox) Code(c Code) Message {
	base := strings.TrimSuffix(o.conf.Link, "/")
	var b strings.Builder
	fmt.Fprintf(&b, "Somebody who manages the workspace %s of Fairlead gave you a one-time code,\nwith which you set the password of the user %s.\n\n", c.Workspace, c.User)
	fmt.Fprintf(&b, "Open this link in your browser:\n\n%s/account/first#workspace=%s&user=%s&code=%s\n\n", base, url.QueryEscape(c.Workspace), url.QueryEscape(c.User), url.QueryEscape(c.Code.ExposeString()))
	fmt.Fprintf(&b, "Or, with the command line, type the code %s when this asks for it:\n\nfairlead login --relay %s --workspace %s --user %s --first\n\n",
		c.Code.ExposeString(), relayOf(base), c.Workspace, c.User)
	fmt.Fprintf(&b, "The code counts once, until %s. Give it to nobody.\nIf you did not expect this message, leave the link alone and tell an admin of your organisation.\n", stamp(c.Until))
	return Message{Subject: "Set your password for Fairlead", Text: secret.FromString(b.String()), Until: c.Until, Person: c.Person}
}

// relayOf is the address of a link for the command line, whose own default is another port.
func relayOf(link string) string {
	host := strings.TrimPrefix(link, "https://")
	if u, err := url.Parse(link); err == nil && u.Port() == "" {
		host += ":443"
	}
	return host
}

// Notice is what happened to somebody's account.
type Notice string

// What people are told of (NIST SP 800-63B).
const (
	PasswordChanged Notice = "password.changed"
	FactorAdded     Notice = "second_factor.added"
	FactorRemoved   Notice = "second_factor.removed"
	PasskeyAdded    Notice = "passkey.added"
	PasskeyRemoved  Notice = "passkey.removed"
	AddressChanged  Notice = "address.changed" // told to the address that was
	CodeGiven       Notice = "code.given"      // to an admin, not to the person
)

var notices = map[Notice]string{
	PasswordChanged: "The password was changed.",
	FactorAdded:     "A second factor was put in force.",
	FactorRemoved:   "The second factor was taken away.",
	PasskeyAdded:    "A passkey was added.",
	PasskeyRemoved:  "A passkey was removed.",
	AddressChanged:  "The e-mail address was changed: messages go to another address, or to none, from now on.",
	CodeGiven:       "An admin made a one-time code with which your password can be set.",
}

// Notice makes the message about what happened; there is no secret in it.
func (o *Outbox) Notice(n Notice, workspace, user string, at time.Time) Message {
	return Message{Notice: n, Subject: "Your Fairlead account was changed", Text: secret.FromString(fmt.Sprintf(
		"%s\n\nUser: %s\nWorkspace: %s\nTime: %s\n\nIf it was you, there is nothing to do. If not, tell an admin of your organisation at once.\n", notices[n], user, workspace, stamp(at)))}
}

// TestMessage is what Try sends when the operator asks whether e-mail works.
func TestMessage() Message {
	return Message{Subject: "E-mail from Fairlead works", Text: secret.FromString("This is the test message that the operator of a Fairlead relay asked for. There is nothing to do.\n")}
}

func stamp(t time.Time) string { return t.UTC().Format("2 January 2006 15:04 UTC") }
