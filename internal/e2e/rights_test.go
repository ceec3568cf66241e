package e2e_test

import (
	"testing"
	"time"

	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// somebody has a token and the rights that its grants give, none besides.
func somebody(t *testing.T, w *testenv.World, name string) *client.Client {
	t.Helper()
	tok, err := w.Client.CreateToken(ctx, client.NewToken{Name: name, Roles: []string{"analyst"}})
	if err != nil {
		t.Fatal(err)
	}
	grants, err := w.Client.Grants(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range grants {
		if g.Principal == tok.Principal {
			if err := w.Client.DeleteGrant(ctx, g.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w.NewClient(secret.FromString(tok.Token))
}

func give(t *testing.T, w *testenv.World, n client.NewGrant) client.Grant {
	t.Helper()
	g, err := w.Client.CreateGrant(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// J8, P11: what ends by itself is over for open streams too: the ones that came with a request each, and those of a tunnel.
func TestGrantThatEndsCutsOpenStreams(t *testing.T) {
	t.Run("J8 a grant that ends", testGrantThatEndsCutsOpenStreams)
}

func testGrantThatEndsCutsOpenStreams(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	dev := somebody(t, w, "dev")
	if _, err := dev.Dial(ctx, "echo"); err == nil {
		t.Fatal("a dial without a grant")
	} else if c, _ := code(err); c != protocol.CodeNotFound { // who holds nothing on it is not told that it is there
		t.Fatalf("got %v", err)
	}
	g := give(t, w, client.NewGrant{Role: "operator", Principal: "dev", Connection: "echo", ExpiresInSeconds: 2})
	done := cut(openDial(t, dev, "echo"))
	<-time.After(time.Until(*g.Until) - 100*time.Millisecond)
	select {
	case <-done:
		t.Fatal("cut before the end of the grant")
	default:
	}
	expectCut(t, done, "grant that ended")
	if late := time.Since(*g.Until); late > 5*time.Second {
		t.Errorf("cut %v after the end", late)
	}
	if _, err := dev.Dial(ctx, "echo"); err == nil {
		t.Error("a dial after the end")
	}
}

// P11: a grant that is taken, and a team that is left, cut at once.
func TestGrantThatIsTakenCutsOpenStreams(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	dev := somebody(t, w, "dev")
	g := give(t, w, client.NewGrant{Role: "operator", Principal: "dev", Environment: "production"})
	done := cut(openDial(t, dev, "echo"))
	if err := w.Client.DeleteGrant(ctx, g.ID); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "grant that was taken")
	if _, err := w.Client.CreateTeam(ctx, client.NewTeam{Name: "night"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.AddMember(ctx, "night", "dev"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.CreateRole(ctx, client.SetRole{Name: "dialler", Actions: []string{"connection.dial"}}); err != nil {
		t.Fatal(err)
	}
	give(t, w, client.NewGrant{Role: "dialler", Team: "night", Connection: "echo"})
	done = cut(openDial(t, dev, "echo"))
	e, err := w.Client.Explain(ctx, client.ExplainQuery{Principal: "dev", Action: "dial", Connection: "echo"})
	if err != nil || !e.Allow || e.Grant == nil || e.Grant.Team != "night" || e.Grant.Role != "dialler" || e.Agent != client.AgentAnswered {
		t.Errorf("%+v, %v", e, err)
	}
	role, err := w.Client.Role(ctx, "dialler")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Client.SetRole(ctx, "dialler", role.ETag, client.SetRole{Name: "dialler", Actions: []string{"connection.query"}}); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "role that was narrowed")
	if _, err := w.Client.SetRole(ctx, "dialler", role.ETag, client.SetRole{Name: "dialler", Actions: []string{"connection.dial"}}); err == nil {
		t.Error("an old ETag is taken")
	} else if c, _ := code(err); c != protocol.CodePrecondition {
		t.Error(err)
	}
	if _, err := w.Client.SetRole(ctx, "dialler", "", client.SetRole{Name: "dialler", Actions: []string{"connection.dial"}}); err != nil {
		t.Fatal(err)
	}
	done = cut(openDial(t, dev, "echo"))
	if err := w.Client.RemoveMember(ctx, "night", "dev"); err != nil {
		t.Fatal(err)
	}
	expectCut(t, done, "member who left")
}
