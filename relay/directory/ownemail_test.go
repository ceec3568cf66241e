package directory_test

import (
	"testing"

	"github.com/fairleadhq/fairlead/protocol"
)

// A person's own address counts whatever becomes of the person, until somebody else has replaced what it signs in with: who had the
// account by a code, and put an address there, gets no code of who that user becomes.
func TestOwnAddressCountsUntilSomebodyReplacedWhatThePersonSignsInWith(t *testing.T) {
	h := newDesk(t)
	const own = "anna@home.example"
	mail := func() error {
		_, _, err := h.d.MailCode(t.Context(), h.owner, "default", h.anna.ID, 0, own)
		return err
	}
	must(t, h.take(h.code))
	was, err := h.d.SetOwnEmail(t.Context(), h.person(), own)
	if err != nil || was != "anna@example.com" {
		t.Fatal(was, err)
	}
	h.give(h.anna.ID, "admin")
	must(t, mail())

	code, _, err := h.d.IssueCode(t.Context(), h.owner, "default", h.anna.ID, 0)
	must(t, err)
	must(t, h.take(code))
	want(t, mail(), protocol.CodeConflict)
	_, err = h.d.SetOwnEmail(t.Context(), h.person(), own) // the same, set again
	must(t, err)
	must(t, mail())

	must(t, h.d.ResetSecondFactor(t.Context(), h.owner, "default", h.anna.ID))
	want(t, mail(), protocol.CodeConflict)

	_, err = h.d.SetOwnEmail(t.Context(), h.person(), "Anna <anna@home.example>")
	want(t, err, protocol.CodeInvalid)
	was, err = h.d.SetOwnEmail(t.Context(), h.person(), "")
	if err != nil || was != own || h.person().Email != "" {
		t.Error(was, err)
	}
}

// An open code that may have gone to the old address counts no more.
func TestOwnAddressClosesAnOpenCode(t *testing.T) {
	h := newDesk(t)
	must(t, h.take(h.code))
	code, _, err := h.d.IssueCode(t.Context(), h.owner, "default", h.anna.ID, 0)
	must(t, err)
	_, err = h.d.SetOwnEmail(t.Context(), h.person(), "anna@home.example")
	must(t, err)
	if h.take(code) == nil {
		t.Error("a code that was open when the address changed counts")
	}
}
