package directory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/store"
	"github.com/fairleadhq/fairlead/relay/vault"
)

// MaxDomains bounds the domains of a workspace.
const MaxDomains = 100

// Domain is a name of a workspace's own: under it, the relay serves that workspace and no other.
type Domain struct {
	ID, Workspace, Name string
	Created             time.Time

	sealed []byte
}

// ETag names the domain, which never changes.
func (d *Domain) ETag() string { return tag("domain", d.ID, d.Name) }

// DomainName is the one form of a host's name: small letters, without a port or a dot at the end. It is "" for an address.
func DomainName(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ""
	}
	return host
}

// HasDomains tells whether any workspace has a name of its own.
func (s *Snapshot) HasDomains() bool { return len(s.domains) > 0 }

// DomainOf finds whose name a host is; nil for one that is no workspace's own.
func (s *Snapshot) DomainOf(host string) *Workspace {
	if len(s.domains) == 0 {
		return nil
	}
	return s.domains[DomainName(host)]
}

// Domain finds a domain by name or id.
func (w *Workspace) Domain(nameOrID string) (*Domain, error) {
	name := DomainName(nameOrID)
	for _, d := range w.Domains {
		if d.ID == nameOrID || d.Name == name {
			return d, nil
		}
	}
	return nil, noDomain()
}

func noDomain() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeNotFound, Message: "no such domain", Hint: "list them: fairlead domains list"}
}

// CheckDomain admits the name of a host of at least two labels (RFC 1123, 2.1), as it stands in DNS: other scripts in their xn-- form.
func CheckDomain(name string) error {
	ok := len(name) <= 253 && strings.Contains(name, ".") && DomainName(name) == name
	for label := range strings.SplitSeq(name, ".") {
		ok = ok && label != "" && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' && strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
	}
	if last := name[strings.LastIndexByte(name, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		ok = false // it could be read as an address
	}
	if !ok {
		return invalid("the domain is not usable", "give the whole name of a host, such as data.example.com, without port or wildcard")
	}
	return nil
}

// CreateDomain makes a name a workspace's own. It refuses (conflict) one that a workspace has already. Which names may be taken at
// all is for the caller to judge.
func (d *Directory) CreateDomain(ctx context.Context, workspace, name string) (*Domain, error) {
	name = DomainName(strings.TrimSpace(name))
	if err := CheckDomain(name); err != nil {
		return nil, err
	}
	digest, err := d.vault.Digest("", vault.NameOfDomain, name)
	if err != nil {
		return nil, err
	}
	row := store.Domain{ID: NewID("dom"), Created: toMs(now()), NameDigest: digest[:]}
	err = d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) (err error) {
		if len(w.Domains) >= MaxDomains {
			return &protocol.Error{Code: protocol.CodeTooLarge, Message: "the workspace has too many domains", Hint: "remove those that nobody calls"}
		}
		row.Workspace = w.ID
		if row.Sealed, err = seal(d.vault, place(w.ID, "domains", row.ID, 1), nameBody{name}); err != nil {
			return err
		}
		return as(tx.InsertDomain(row), protocol.Errorf(protocol.CodeNotFound, "no such workspace"),
			&protocol.Error{Code: protocol.CodeConflict, Message: "the domain is a workspace's already", Hint: "list this one's: fairlead domains list; if it is not there, ask the relay's operator"})
	})
	if err != nil {
		return nil, err
	}
	return d.Snapshot().before(row.Workspace).Domain(row.ID)
}

// DeleteDomain takes a name (or id) away from a workspace: under it, the relay serves all again.
func (d *Directory) DeleteDomain(ctx context.Context, workspace, nameOrID string) error {
	return d.judged(ctx, workspace, func(tx *store.Tx, w *Workspace) error {
		o, err := w.Domain(nameOrID)
		if err != nil {
			return err
		}
		return as(tx.DeleteDomain(w.ID, o.ID), noDomain(), nil)
	})
}

func (s *Snapshot) addDomains(v *vault.Vault, st *store.State, prev *Snapshot) error {
	s.domains = make(map[string]*Workspace, len(st.Domains))
	for _, r := range st.Domains {
		w, err := s.in("domain", r.ID, r.Workspace)
		if err != nil {
			return err
		}
		o := &Domain{ID: r.ID, Workspace: r.Workspace, Created: fromMs(r.Created), sealed: r.Sealed}
		i := slices.IndexFunc(prev.before(r.Workspace).Domains, func(d *Domain) bool { return d.ID == r.ID && bytes.Equal(d.sealed, r.Sealed) })
		if i >= 0 {
			o.Name = prev.before(r.Workspace).Domains[i].Name
		} else {
			var b nameBody
			if err := open(v, place(r.Workspace, "domains", r.ID, 1), r.Sealed, &b); err != nil {
				return err
			}
			o.Name = b.Name
		}
		// The digest is what keeps two workspaces from one name: a row whose digest was exchanged by hand must not take one over.
		want, err := v.Digest("", vault.NameOfDomain, o.Name)
		if err != nil {
			return fmt.Errorf("check domain %s: %w", r.ID, err)
		}
		if !bytes.Equal(want[:], r.NameDigest) || s.domains[o.Name] != nil {
			return fmt.Errorf("domain %s was not written by a relay of this installation", r.ID)
		}
		w.Domains = append(w.Domains, o)
		s.domains[o.Name] = w
	}
	for _, w := range s.workspaces {
		slices.SortFunc(w.Domains, func(a, b *Domain) int { return cmp.Compare(a.Name, b.Name) })
	}
	return nil
}
