package policy

import (
	"cmp"
	"slices"

	"github.com/fairleadhq/fairlead/protocol"
)

// Offers lists the profiles and the operations that each allows at least in part, sorted by kind and name.
func (p *Policy) Offers() []protocol.ProfileOffer {
	var out []protocol.ProfileOffer
	offer := func(kind protocol.Kind, name, adapter string, allowed func(protocol.Operation) bool) {
		o := protocol.ProfileOffer{Name: name, Kind: kind, Adapter: adapter, Operations: []protocol.Operation{}}
		for _, op := range protocol.Operations(kind) {
			if allowed(op) {
				o.Operations = append(o.Operations, op)
			}
		}
		out = append(out, o)
	}
	for name, d := range p.database {
		offer(protocol.KindDatabase, name, string(d.dialect), func(op protocol.Operation) bool {
			switch op {
			case protocol.OpDial:
				return d.dial
			case protocol.OpSchema:
				return d.mode != ModeStatements
			case protocol.OpQuery:
				return true
			}
			return d.mode != ModeReadOnly
		})
	}
	for name, f := range p.files {
		offer(protocol.KindFiles, name, "", func(op protocol.Operation) bool { return f.verbs[string(op)] })
	}
	for name, w := range p.http {
		offer(protocol.KindHTTP, name, "", func(protocol.Operation) bool { return len(w.rules) > 0 })
	}
	for name := range p.tcp {
		offer(protocol.KindTCP, name, "", func(protocol.Operation) bool { return true })
	}
	slices.SortFunc(out, func(a, b protocol.ProfileOffer) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Globs returns what a files profile shows; nil, which admits everything, for a profile without match. ok is false when there
// is no such profile.
func (p *Policy) Globs(profile string) (g *Globs, ok bool) {
	f := p.files[profile]
	if f == nil {
		return nil, false
	}
	return f.globs, true
}
