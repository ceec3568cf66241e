package e2e_test

import (
	"testing"

	"github.com/fairleadhq/fairlead/internal/testenv"
	"github.com/fairleadhq/fairlead/relay/client"
)

// P11: what runs by a grant on a project is cut when its connection is moved out, and what runs by another right goes on.
func TestConnectionThatIsMovedOutCutsOpenStreams(t *testing.T) {
	w := shop(t, testenv.Options{YAML: echoYAML(echoServer(t))})
	w.Connection("echo")
	for _, p := range []string{"sales", "plant"} {
		if _, err := w.Client.CreateProject(ctx, client.SetProject{Name: p}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Client.CreateFolder(ctx, "sales", client.NewFolder{Path: "lab"}); err != nil {
		t.Fatal(err)
	}
	move := func(project, folder string) {
		t.Helper()
		if _, err := w.Client.MoveConnection(ctx, "echo", client.SetPlace{Project: project, Folder: folder}); err != nil {
			t.Fatal(err)
		}
	}
	move("sales", "lab")
	dev, all, inner := somebody(t, w, "dev"), somebody(t, w, "all"), somebody(t, w, "inner")
	give(t, w, client.NewGrant{Role: "operator", Principal: "dev", Project: "sales", Environment: "production"})
	give(t, w, client.NewGrant{Role: "operator", Principal: "all", Environment: "production"})
	give(t, w, client.NewGrant{Role: "operator", Principal: "inner", Project: "sales", Folder: "lab"})
	byProject, byEnvironment, byFolder := cut(openDial(t, dev, "echo")), cut(openDial(t, all, "echo")), cut(openDial(t, inner, "echo"))
	move("sales", "")
	expectCut(t, byFolder, "connection that left the folder")
	select {
	case <-byProject:
		t.Fatal("cut, and it stands in the project still")
	default:
	}
	move("plant", "")
	expectCut(t, byProject, "connection that left the project")
	if _, err := dev.Dial(ctx, "echo"); err == nil {
		t.Error("a dial after the move")
	}
	select {
	case <-byEnvironment:
		t.Error("cut by a move that took nothing from it")
	default:
	}
}
