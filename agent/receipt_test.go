package agent

import (
	"crypto/ed25519"
	"testing"

	"github.com/fairleadhq/fairlead/internal/audit"
	"github.com/fairleadhq/fairlead/protocol"
)

// A receipt counts for what it names by its hash, and never for more than was sent.
func TestReceiptsAreCheckedAgainstOurOwnLog(t *testing.T) {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Config{Dir: t.TempDir(), Source: "agt_a", Key: key})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 10 {
		tk, err := l.Append([]byte(`{}`))
		if err == nil {
			err = tk.Wait(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	all, err := l.Read(0, 10)
	if err != nil || len(all) != 10 {
		t.Fatal(len(all), err)
	}
	at := func(seq, hash int) protocol.LogHead {
		return protocol.LogHead{Seq: uint64(seq), Hash: all[hash-1].Hash}
	}
	for name, c := range map[string]struct {
		head protocol.LogHead
		want uint64
		ok   bool
	}{
		"the batch": {at(5, 5), 5, true}, "a part": {at(3, 3), 3, true}, "before the batch": {at(1, 1), 1, true}, "before it, by a wrong hash": {at(1, 2), 0, false}, "more, which it proves": {at(9, 9), 5, true}, "nothing": {protocol.LogHead{}, 0, true},
		"another record": {at(5, 4), 0, false}, "no hash": {protocol.LogHead{Seq: 5}, 0, false}, "more, by a wrong hash": {at(9, 5), 0, false}, "what is not": {at(11, 10), 0, false}, "overflow": {at(-1, 10), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := acknowledged(l, all[1:5], c.head)
			if got != c.want || (err == nil) != c.ok {
				t.Errorf("%d, %v", got, err)
			}
		})
	}
}
