package main

import (
	"context"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type domainsCommands struct {
	List   domainsList   `cmd:"" help:"List the workspace's own domains, and until when their certificates are good."`
	Show   domainsShow   `cmd:"" help:"Show one domain."`
	Add    domainsAdd    `cmd:"" help:"Make a name the workspace's own: under it, the relay serves this workspace alone."`
	Remove domainsRemove `cmd:"" help:"Take a name away from the workspace."`
}

type domainsList struct{ cli.Output }

func (*domainsList) Examples() []string { return []string{"fairlead domains list"} }

func (k *domainsList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.Domains(ctx)
	if err != nil {
		return err
	}
	return domainTable.list(t, k.Output, l)
}

func certificateOf(d client.Domain) string {
	if d.CertificateEndsAt == nil {
		return "none: callers see the relay's own"
	}
	return "until " + stamp(*d.CertificateEndsAt)
}

type domainsAdd struct {
	Name string `arg:"" help:"Whole name of a host that leads to the relay, such as data.example.com; the relay's operator says which may be taken."`
	cli.Output
}

func (*domainsAdd) Examples() []string { return []string{"fairlead domains add data.example.com"} }

func (k *domainsAdd) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	d, err := c.CreateDomain(ctx, k.Name)
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(d)
	}
	t.Notef("%s is the workspace's own; certificate: %s\n", cli.Clean(d.Name), certificateOf(d))
	return nil
}

type domainsRemove struct {
	Name string `arg:"" help:"Name or id of the domain."`
	ifMatch
}

func (*domainsRemove) Examples() []string {
	return []string{"fairlead domains remove data.example.com"}
}

func (k *domainsRemove) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := k.on(c).DeleteDomain(ctx, k.Name); err != nil {
		return about(k.Name, err)
	}
	t.Notef("domain %s is no longer the workspace's own\n", cli.Clean(k.Name))
	return nil
}
