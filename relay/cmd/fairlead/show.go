package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

// A table shows things of one kind to people, in a list and alone.
type table[T any] struct {
	header []string
	row    func(T) []string
}

// list prints things, as JSON where o says so.
func (a table[T]) list(t *cli.Term, o cli.Output, l []T) error { return list(t, o, l, a.header, a.row) }

// show asks for one thing and prints it.
func (a table[T]) show(ctx context.Context, t *cli.Term, r *relayFlags, o cli.Output, name string, ask func(*client.Client, context.Context, string) (T, error)) error {
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	found, err := ask(c, ctx, name)
	if err != nil {
		return about(name, err)
	}
	if o.JSON() {
		return t.JSON(found)
	}
	return t.Table(a.header, [][]string{a.row(found)})
}

var domainTable = table[client.Domain]{[]string{"name", "certificate", "created", "id"}, func(d client.Domain) []string {
	return []string{d.Name, certificateOf(d), stamp(d.CreatedAt), d.ID}
}}

var serviceTable = table[client.ServiceAccount]{[]string{"name", "roles", "state", "tokens", "created", "id"}, func(s client.ServiceAccount) []string {
	state := "active"
	if s.Disabled {
		state = "disabled"
	}
	return []string{s.Name, strings.Join(s.Roles, ","), state, strconv.Itoa(s.Tokens), stamp(s.CreatedAt), s.ID}
}}

var teamTable = table[client.Team]{[]string{"id", "name", "members", "created"}, func(a client.Team) []string {
	var names []string
	for _, m := range a.Members {
		names = append(names, m.Name)
	}
	return []string{a.ID, a.Name, strings.Join(names, ", "), stamp(a.CreatedAt)}
}}

var projectTable = table[client.Project]{[]string{"name", "created", "id"}, func(p client.Project) []string {
	return []string{p.Name, stamp(p.CreatedAt), p.ID}
}}

type domainsShow struct {
	Name string `arg:"" help:"Name or id of the domain."`
	cli.Output
}

func (*domainsShow) Examples() []string { return []string{"fairlead domains show data.example.com"} }

func (k *domainsShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return domainTable.show(ctx, t, r, k.Output, k.Name, (*client.Client).Domain)
}

type servicesShow struct {
	serviceArg
	cli.Output
}

func (*servicesShow) Examples() []string {
	return []string{"fairlead service-accounts show nightly-report"}
}

func (k *servicesShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return serviceTable.show(ctx, t, r, k.Output, k.Name, (*client.Client).ServiceAccount)
}

type teamsShow struct {
	Name string `arg:"" help:"Name or id of the team."`
	cli.Output
}

func (*teamsShow) Examples() []string { return []string{"fairlead teams show night"} }

func (k *teamsShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return teamTable.show(ctx, t, r, k.Output, k.Name, (*client.Client).Team)
}

type projectsShow struct {
	Name string `arg:"" help:"Name or id of the project."`
	cli.Output
}

func (*projectsShow) Examples() []string { return []string{"fairlead projects show sales"} }

func (k *projectsShow) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	return projectTable.show(ctx, t, r, k.Output, k.Name, (*client.Client).Project)
}
