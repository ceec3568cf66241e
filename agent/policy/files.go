package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
)

// Verbs lists what a files profile can allow. stat goes with list and read by itself.
var verbs = []string{"list", "stat", "read", "write", "delete", "move", "mkdir"}

type files struct {
	rule   rule
	match  rule
	verbs  map[string]bool
	globs  *Globs
	limits Limits
}

func (k *compiler) files(name string, c Files) {
	path := k.profile(protocol.KindFiles, name)
	f := &files{rule: k.rule(path + ".allow"), match: k.rule(path + ".match"), verbs: map[string]bool{}, limits: Limits{MaxSize: c.MaxSize, Timeout: c.Timeout}}
	if c.MaxSize < 0 || c.Timeout < 0 {
		k.fault(path, "a limit is negative", "")
	}
	for i, v := range c.Allow {
		if !slices.Contains(verbs, v) {
			k.fault(fmt.Sprintf("%s.allow[%d]", path, i), fmt.Sprintf("%q is not known here", v), "one of: "+strings.Join(verbs, ", "))
		}
		f.verbs[v] = true
	}
	if f.verbs["list"] || f.verbs["read"] {
		f.verbs["stat"] = true
	}
	for i, m := range c.Match {
		if err := checkGlob(m); err != nil {
			k.fault(fmt.Sprintf("%s.match[%d]", path, i), err.Error(), `such as "*.csv" (this folder) or "**/*.csv" (every folder)`)
		}
	}
	if len(c.Match) > 0 {
		f.globs = newGlobs(c.Match)
	}
	k.p.files[name] = f
}

func (p *Policy) decideFiles(r *protocol.Request) Decision {
	verb := string(r.Operation)
	f := p.files[r.Profile]
	if f == nil {
		return notAllowed(r.Kind, r.Profile, verb, 0)
	}
	if !f.verbs[verb] {
		return notAllowed(r.Kind, r.Profile, verb, f.rule.line)
	}
	if r.Operation == protocol.OpMove && r.Overwrite && !f.verbs["write"] {
		return deny(f.rule, protocol.CodeDenied, "the site does not allow write on files profile "+r.Profile+", which move with overwrite needs", askAdmin+" under "+f.rule.path)
	}
	d := allow(f.rule)
	d.Limits, d.Match = f.limits, f.globs
	var err error
	if d.Path, err = CleanPath(r.Path); err == nil {
		d.To, err = CleanPath(r.To)
	}
	if err == nil && r.Glob != "" {
		err = checkGlob(r.Glob)
	}
	if err != nil {
		return deny(f.rule, protocol.CodeInvalid, err.Error(), `paths are relative to the profile's folder, with "/" between names`)
	}
	// The base itself is a folder, not a thing to read, write or remove.
	folder := r.Operation == protocol.OpList || r.Operation == protocol.OpStat
	if d.Path == "" && !folder || d.To == "" && r.Operation == protocol.OpMove {
		return deny(f.rule, protocol.CodeInvalid, verb+" wants a path below the profile's folder", "")
	}
	admitted := f.globs.File(d.Path)
	switch r.Operation {
	case protocol.OpList:
		admitted = f.globs.Folder(d.Path)
	case protocol.OpStat:
		admitted = admitted || f.globs.Folder(d.Path)
	case protocol.OpMkdir:
		admitted = f.globs.Folder(d.Path)
	case protocol.OpMove:
		admitted = admitted && f.globs.File(d.To)
	}
	if !admitted {
		return deny(f.match, protocol.CodeDenied, "the site does not show this path on files profile "+r.Profile, askAdmin+" under "+f.match.path)
	}
	return d
}
