package api

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/authz"
	"github.com/fairleadhq/fairlead/relay/client"
	"github.com/fairleadhq/fairlead/relay/directory"
)

const ruleDomain = "domain"

// misdirected tells whether a conn was opened for a workspace's name and is now asked for another host: a browser shares conns among
// names of one certificate (RFC 9110, 7.4 and 15.5.20). What a trusted proxy asks for in TLS is no caller's word.
func (a *API) misdirected(r *http.Request) bool {
	if r.TLS == nil || r.TLS.ServerName == "" {
		return false
	}
	s := a.cfg.Directory.Snapshot()
	if !s.HasDomains() {
		return false
	}
	asked, said := directory.DomainName(r.TLS.ServerName), directory.DomainName(r.Host)
	return asked != said && (s.DomainOf(asked) != nil || s.DomainOf(said) != nil) && !a.throughProxy(r)
}

// throughProxy tells whether the conn is of a load balancer that may speak for callers.
func (a *API) throughProxy(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && trusted(a.cfg.TrustedProxies, peer.Addr().Unmap().WithZone(""))
}

// named judges a request by its version of HTTP (RFC 9110, 15.6.6) and the names that it came under, and answers one that it refuses.
func (a *API) named(w http.ResponseWriter, r *http.Request) bool {
	refuse := func(status int, code protocol.Code, rule, message, hint string) bool {
		a.failAs(w, r, status, &protocol.Error{Code: code, Origin: protocol.OriginRelay, Rule: rule, Message: message, Hint: hint})
		return false
	}
	const newer = "use HTTP/1.1 or newer, or ask the relay's operator"
	switch old := !r.ProtoAtLeast(1, 1); {
	case old && !a.cfg.HTTP10:
		return refuse(http.StatusHTTPVersionNotSupported, protocol.CodeUnsupported, "api.min_http", "this relay takes HTTP/1.1 and HTTP/2", newer)
	case a.misdirected(r):
		return refuse(http.StatusMisdirectedRequest, protocol.CodeDenied, ruleDomain, "this connection was opened for another name", "open one for the host that the request names")
	case old && !a.cfg.DomainHTTP10 && a.cfg.Directory.Snapshot().DomainOf(r.Host) != nil:
		return refuse(http.StatusHTTPVersionNotSupported, protocol.CodeUnsupported, ruleDomain, "under this name the relay takes HTTP/1.1 and HTTP/2", newer)
	}
	return true
}

// under refuses whoever is of another workspace than the name that the request came under.
func under(s *directory.Snapshot, r *http.Request, workspace string) error {
	if d := s.DomainOf(r.Host); d != nil && d.ID != workspace && d.Name != workspace {
		return foreignDomain()
	}
	return nil
}

// foreignDomain refuses a workspace under a name that is another one's.
func foreignDomain() *protocol.Error {
	return &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: ruleDomain, Message: "the name that you call the relay by is another workspace's",
		Hint: "use your own workspace's domain, or the relay's public address"}
}

// mayBeDomain tells whether the relay's operator lets workspaces have a name. "*." stands for one label.
func (a *API) mayBeDomain(name string) bool {
	_, rest, _ := strings.Cut(name, ".")
	return slices.Contains(a.cfg.Domains, name) || slices.Contains(a.cfg.Domains, "*."+rest)
}

func (a *API) domainRoutes() {
	const ws = "/workspaces/{workspace}"
	shape := func(d *directory.Domain) client.Domain {
		o := client.Domain{ID: d.ID, Name: d.Name, CreatedAt: d.Created, ETag: d.ETag()}
		if a.cfg.Certificate != nil {
			if c := a.cfg.Certificate(d.Name); c != nil {
				o.CertificateEndsAt = &c.NotAfter
			}
		}
		return o
	}
	route(a, "GET", ws+"/domains", authz.DomainsRead, "List the workspace's own domains", 200, func(_ context.Context, v *visit, _ *inWorkspace) (*out[client.List[client.Domain]], error) {
		l := client.List[client.Domain]{Items: []client.Domain{}}
		for _, d := range v.workspace.Domains {
			l.Items = append(l.Items, shape(d))
		}
		return &out[client.List[client.Domain]]{l}, nil
	})
	route(a, "GET", ws+"/domains/{name}", authz.DomainsRead, "One domain", 200, func(_ context.Context, v *visit, i *inName) (*out[client.Domain], error) {
		d, err := v.workspace.Domain(i.Name)
		if err != nil {
			return nil, err
		}
		return &out[client.Domain]{shape(d)}, nil
	})
	route(a, "POST", ws+"/domains", authz.DomainsCreate, "Make a name the workspace's own: under it, the relay serves this workspace alone", 201, func(ctx context.Context, v *visit, i *in[client.NewDomain]) (*out[client.Domain], error) {
		if !a.mayBeDomain(directory.DomainName(i.Body.Name)) {
			return nil, a.deniedIn(ctx, v, &protocol.Error{Code: protocol.CodeDenied, Origin: protocol.OriginRelay, Rule: "api.domains", Message: "no workspace may make this name its own",
				Hint: "the relay's operator names those that may be taken: api.domains in relay.yaml"})
		}
		d, err := a.cfg.Directory.CreateDomain(ctx, v.workspace.ID, i.Body.Name)
		if err != nil {
			return nil, err
		}
		return &out[client.Domain]{shape(d)}, nil
	})
	route(a, "DELETE", ws+"/domains/{name}", authz.DomainsDelete, "Take a domain away", 204, func(ctx context.Context, v *visit, i *inName) (*none, error) {
		return nil, a.cfg.Directory.DeleteDomain(ctx, v.workspace.ID, i.Name)
	})
}
