package main

import (
	"context"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type servicesCommands struct {
	List    servicesList    `cmd:"" help:"List service accounts."`
	Show    servicesShow    `cmd:"" help:"Show one service account."`
	Create  servicesCreate  `cmd:"" help:"Make a service account. It has no token yet: fairlead tokens create NAME --for ACCOUNT."`
	Disable servicesDisable `cmd:"" help:"Refuse all its tokens at once, open streams included, until enabled."`
	Enable  servicesEnable  `cmd:"" help:"Take its tokens again."`
	Delete  servicesDelete  `cmd:"" help:"Remove a service account with its grants and tokens."`
}

type servicesList struct{ cli.Output }

func (*servicesList) Examples() []string { return []string{"fairlead service-accounts list"} }

func (k *servicesList) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	l, err := c.ServiceAccounts(ctx)
	if err != nil {
		return err
	}
	return serviceTable.list(t, k.Output, l)
}

type servicesCreate struct {
	Name string   `arg:"" help:"Name of the program."`
	Role []string `placeholder:"ROLE" help:"Role on the whole workspace: owner, admin, operator or analyst. May be given several times. What it shall hold elsewhere, grants give."`
	cli.Output
}

func (*servicesCreate) Examples() []string {
	return []string{"fairlead service-accounts create nightly-report --role analyst", "fairlead service-accounts create loader"}
}

func (k *servicesCreate) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	s, err := c.CreateServiceAccount(ctx, client.NewServiceAccount{Name: k.Name, Roles: k.Role})
	if err != nil {
		return about(k.Name, err)
	}
	if k.JSON() {
		return t.JSON(s)
	}
	t.Notef("service account %s (%s) is made, without a token: fairlead tokens create NAME --for %s\n", cli.Clean(s.Name), s.ID, s.ID)
	return nil
}

// serviceArg names a service account.
type serviceArg struct {
	Name string `arg:"" help:"Name or id of the service account."`
}

func (k serviceArg) change(ctx context.Context, t *cli.Term, r *relayFlags, only ifMatch, done string, do func(*client.Client, context.Context, string) error) error {
	return r.change(ctx, t, only, "service account", k.Name, done, do)
}

type servicesDisable struct {
	serviceArg
	ifMatch
}

func (*servicesDisable) Examples() []string {
	return []string{"fairlead service-accounts disable nightly-report"}
}

func (k *servicesDisable) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "is disabled", (*client.Client).DisableServiceAccount)
}

type servicesEnable struct {
	serviceArg
	ifMatch
}

func (*servicesEnable) Examples() []string {
	return []string{"fairlead service-accounts enable nightly-report"}
}

func (k *servicesEnable) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "is enabled", (*client.Client).EnableServiceAccount)
}

type servicesDelete struct {
	serviceArg
	ifMatch
}

func (*servicesDelete) Examples() []string {
	return []string{"fairlead service-accounts delete nightly-report"}
}

func (k *servicesDelete) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return k.change(ctx, t, r, k.ifMatch, "is deleted, with its grants and tokens", (*client.Client).DeleteServiceAccount)
}
