package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/relay/client"
)

type explainCommand struct {
	As         string   `placeholder:"PRINCIPAL" help:"Name or id of whom it is about; the name of a token is its principal's."`
	AsToken    string   `placeholder:"ID" help:"Id of a token that it is about, with the token's limits; in place of --as."`
	From       string   `placeholder:"ADDRESS" help:"Address that it comes from. Without it, your own."`
	Action     string   `arg:"" optional:"" help:"Action, such as connections.read, or an operation on a connection, such as query."`
	Connection string   `arg:"" optional:"" name:"asset" help:"Name or id of the connection; project/NAME or project/NAME/FOLDER for an action on a project or folder; none for one on the workspace."`
	In         string   `name:"environment" placeholder:"ENV" help:"With a project, folder or nothing: in this environment alone, development, test or production."`
	SQL        string   `name:"sql" placeholder:"SQL" help:"With query, exec or transaction: the statement. The site is asked what it would decide, and does nothing."`
	Statement  string   `placeholder:"NAME" help:"The same by the name of a statement that the site declares."`
	Path       string   `placeholder:"PATH" help:"With an operation on files: the file or folder."`
	To         string   `placeholder:"PATH" help:"With move: where to."`
	Method     string   `placeholder:"METHOD" help:"With request: the method."`
	Target     string   `placeholder:"PATH" help:"With request: path and query, beginning with a slash."`
	Replay     lifetime `placeholder:"TIME" help:"Make the decisions of so long ago until now again, such as 7d, under the change that --with, --without and --role propose, and list those that would be others. Changes nothing."`
	With       []string `sep:"none" placeholder:"GRANT" help:"With --replay: a grant that would be given, such as 'analyst to bob', 'operator to team night-shift in production', 'analyst to bob on sales', 'analyst to bob on project/shop in test'."`
	Without    []string `placeholder:"ID" help:"With --replay: a grant that would be gone."`
	Role       []string `sep:"none" placeholder:"NAME=ACTION,..." help:"With --replay: what a custom role would hold."`
	cli.Output
}

func (*explainCommand) Examples() []string {
	return []string{"fairlead explain --as reports query sales", "fairlead explain --as night-shift --from 192.0.2.7 exec sales", "fairlead explain --as reports agents.read", "fairlead explain --as-token tok_7w3zt2k5q4x6y7z2a3b4c5d6e7 query sales",
		"fairlead explain --as reports query sales --sql 'select * from orders'", "fairlead explain --as night-shift read papers --path reports/2026.csv",
		"fairlead explain --as reports connections.manage project/sales/reports --environment test",
		"fairlead explain --replay 7d --without gra_7w3zt2k5q4x6y7z2a3b4c5d6e7 --with 'analyst to bob on sales'"}
}

// lacks says in words what a grant lacks.
var lacks = map[string]string{"action": "its role does not hold the action", "scope": "it is given on something else", "time": "it is over", "source": "it is not for this address"}

func (k *explainCommand) Run(ctx context.Context, t *cli.Term, r *relayFlags) error {
	proposes := len(k.With)+len(k.Without)+len(k.Role) > 0
	switch {
	case k.Replay == 0 && proposes:
		return cli.Usage("--with, --without and --role are for --replay")
	case k.Replay == 0 && ((k.As == "") == (k.AsToken == "") || k.Action == ""):
		return cli.Usage("name whom it is about, and an action: fairlead explain --as PRINCIPAL (or --as-token ID) ACTION [CONNECTION | project/NAME]")
	case k.Replay != 0 && (k.As != "" || k.AsToken != "" || k.From != "" || k.Action != "" || k.In != "" || k.SQL+k.Statement+k.Path+k.To+k.Method+k.Target != ""):
		return cli.Usage("--replay is about everybody's recorded decisions: give no --as, --as-token, --from, --environment or action")
	case k.Replay != 0:
		return k.replay(ctx, t, r)
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	q := client.ExplainQuery{Principal: k.As, Token: k.AsToken, Action: k.Action, Environment: k.In, Source: k.From, SQL: k.SQL, Statement: k.Statement, Path: k.Path, To: k.To, Method: k.Method, Target: k.Target}
	q.Project, q.Folder, q.Connection = onAsset(k.Connection)
	e, err := c.Explain(ctx, q)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(e)
	}
	on := "the workspace"
	switch {
	case e.Connection != "":
		on = "connection " + e.Connection + " (" + e.Environment + ")"
	case e.Project != "":
		if on = "project " + placeName(e.Project, e.Folder); e.Environment != "" {
			on += " in " + e.Environment
		}
	case e.Environment != "":
		on = "environment " + e.Environment
	}
	answer := "no"
	if e.Allow {
		answer = "yes"
	}
	if len(e.NotShown) > 0 {
		answer += ", as far as you may see"
	}
	t.Printf("%s: %s, from %s, on %s: %s\n", cli.Clean(e.PrincipalName), e.Action, e.SourceAddress, cli.Clean(on), answer)
	t.Printf("  because: %s\n", cli.Clean(e.Reason))
	if e.Grant != nil {
		t.Printf("  by:      %s\n", cli.Clean(describe(*e.Grant)))
	}
	if len(e.Missing) > 0 {
		t.Printf("  missing: %s, which these roles hold: %s\n", strings.Join(e.Missing, ", "), cli.Clean(strings.Join(e.Roles, ", ")))
		for _, n := range e.Near {
			var why []string
			for _, l := range n.Lacks {
				why = append(why, lacks[l])
			}
			t.Printf("  near:    %s: %s\n", cli.Clean(describe(n.Grant)), strings.Join(why, ", "))
		}
	}
	for _, what := range e.NotShown {
		t.Printf("  not shown: %s\n", cli.Clean(what))
	}
	switch {
	case e.Site != nil:
		site(t, *e.Site)
		return nil
	case e.Agent == client.AgentOffers:
		t.Printf("  site:    its agents offer the operation on this profile\n")
	case e.Agent == client.AgentOffersNo:
		t.Printf("  site:    its agents do not offer the operation on this profile: it would be refused there\n")
	case e.Agent == client.AgentMissing:
		t.Printf("  site:    no connected agent offers it now\n")
	}
	if e.AgentHint != "" {
		t.Notef("%s\n", cli.Clean(e.AgentHint))
	}
	return nil
}

// site prints what an agent would decide.
func site(t *cli.Term, v client.SiteVerdict) {
	answer := "no"
	if v.Allow {
		answer = "yes"
	}
	t.Printf("  site:    %s, says %s: %s\n", answer, cli.Clean(v.Agent), cli.Clean(v.Reason))
	if v.Rule != "" {
		t.Printf("  rule:    %s of its agent.yaml\n", cli.Clean(v.Rule))
	}
	if v.Hint != "" {
		t.Printf("  hint:    %s\n", cli.Clean(v.Hint))
	}
	if v.Statement != "" {
		t.Printf("  event:   %s\n", cli.Clean(v.Statement))
	}
	var caps []string
	if v.MaxRows > 0 {
		caps = append(caps, count(v.MaxRows, "row"))
	}
	if v.MaxBytes > 0 {
		caps = append(caps, count(v.MaxBytes, "byte"))
	}
	if v.TimeoutMs > 0 {
		caps = append(caps, (time.Duration(v.TimeoutMs) * time.Millisecond).String())
	}
	if len(caps) > 0 {
		t.Printf("  at most: %s\n", strings.Join(caps, ", "))
	}
}

// onAsset reads what an action is about: a connection, or project/NAME and a folder behind that.
func onAsset(s string) (project, folder, connection string) {
	rest, ok := strings.CutPrefix(s, "project/")
	if !ok {
		return "", "", s
	}
	project, folder, _ = strings.Cut(rest, "/")
	return project, folder, ""
}

// describe names a grant in a line.
func describe(g client.Grant) string {
	s := g.ID + ", role " + g.Role + " on " + onWhat(g)
	if g.Team != "" {
		s += ", through team " + g.Team
	}
	if g.Until != nil {
		s += ", until " + stampPtr(g.Until)
	}
	if len(g.From) > 0 {
		s += ", from " + strings.Join(g.From, " ")
	}
	return s
}

// replay lists which recorded decisions would be others.
func (k *explainCommand) replay(ctx context.Context, t *cli.Term, r *relayFlags) error {
	q := client.ReplayQuery{SinceSeconds: k.Replay.seconds(), Without: k.Without}
	for _, s := range k.With {
		g, err := proposedGrant(s)
		if err != nil {
			return err
		}
		q.With = append(q.With, g)
	}
	for _, s := range k.Role {
		name, actions, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return cli.Usage("--role %q: want NAME=ACTION,...", s)
		}
		q.Roles = append(q.Roles, client.SetRole{Name: name, Actions: slices.DeleteFunc(strings.Split(actions, ","), func(a string) bool { return a == "" })})
	}
	c, err := r.open(t)
	if err != nil {
		return err
	}
	defer c.Close()
	res, err := c.Replay(ctx, q)
	if err != nil {
		return err
	}
	if k.JSON() {
		return t.JSON(res)
	}
	may := map[bool]string{true: "allowed", false: "refused"}
	ours, before := 0, 0
	for _, f := range res.Flips {
		was := may[f.Recorded]
		if f.Now == f.Proposed {
			before++
			was += ", and " + may[f.Now] + " by now without the change"
		} else {
			ours++
		}
		t.Printf("%s: %s on %s, from %s: would be %s; was %s, %s, last %s\n", cli.Clean(f.PrincipalName), f.Action, cli.Clean(f.Connection), f.SourceAddress, may[f.Proposed], was,
			count(f.Count, "time"), stampPtr(&f.LastAt))
		t.Printf("  because: %s\n", cli.Clean(f.Reason))
	}
	t.Printf("%s made again: %s by the change, %s by what was changed before\n", count(res.Replayed, "recorded decision"), count(int64(ours), "flip"), count(int64(before), "flip"))
	if res.Gone > 0 {
		t.Notef("%s left out: the principal or connection is no longer there\n", count(res.Gone, "decision"))
	}
	if !res.Complete {
		t.Notef("the log, or what one replay reads of it, does not go back to %s\n", stampPtr(&res.Since))
	}
	return nil
}

// proposedGrant reads ROLE to [team] NAME [on CONNECTION | on project/NAME[/FOLDER] | in ENVIRONMENT | on project/… in ENVIRONMENT].
func proposedGrant(s string) (g client.NewGrant, err error) {
	w := strings.Fields(s)
	bad := func() (client.NewGrant, error) {
		return client.NewGrant{}, cli.Usage("--with %q: want ROLE to [team] NAME [on CONNECTION | on project/NAME | in ENVIRONMENT]", s)
	}
	if len(w) < 3 || w[1] != "to" {
		return bad()
	}
	g.Role, w = w[0], w[2:]
	if w[0] == "team" && len(w) > 1 && w[1] != "on" && w[1] != "in" {
		g.Team, w = w[1], w[2:]
	} else {
		g.Principal, w = w[0], w[1:]
	}
	switch {
	case len(w) == 0:
	case len(w) == 2 && w[0] == "on":
		g.Project, g.Folder, g.Connection = onAsset(w[1])
	case len(w) == 2 && w[0] == "in":
		g.Environment = w[1]
	case len(w) == 4 && w[0] == "on" && w[2] == "in" && strings.HasPrefix(w[1], "project/"):
		g.Project, g.Folder, _ = onAsset(w[1])
		g.Environment = w[3]
	default:
		return bad()
	}
	return g, nil
}
