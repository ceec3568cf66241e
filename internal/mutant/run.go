package mutant

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Fate is what became of a mutant.
type Fate string

const (
	Killed    Fate = "killed"    // a test failed, or ran longer than it may
	Survived  Fate = "survived"  // every test passed
	Stillborn Fate = "stillborn" // it does not compile
)

// Tests are those that are to notice.
type Tests struct {
	Packages []string      // as the go command names them
	Run      string        // -run; "" for all
	Limit    time.Duration // of one run; a mutant that takes longer is killed
}

// Try runs the tests on a mutant of a file. dir is for temporary files of this call alone.
func (t Tests) Try(ctx context.Context, dir string, m Mutant, src []byte) (Fate, []byte, error) {
	whole, err := filepath.Abs(m.File)
	if err != nil {
		return "", nil, err
	}
	changed, overlay := filepath.Join(dir, "mutant.go"), filepath.Join(dir, "overlay.json")
	b, err := json.Marshal(map[string]any{"Replace": map[string]string{whole: changed}})
	if err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(changed, m.Apply(src), 0o600); err != nil {
		return "", nil, err
	}
	if err := os.WriteFile(overlay, b, 0o600); err != nil {
		return "", nil, err
	}
	args := append([]string{"test", "-overlay", overlay, "-count=1", "-failfast", "-vet=off", "-timeout", t.Limit.String(), "-run", t.Run}, t.Packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	switch err := cmd.Run(); {
	case ctx.Err() != nil:
		return "", nil, ctx.Err()
	case err == nil:
		return Survived, out.Bytes(), nil
	case strings.Contains(out.String(), "[build failed]") || strings.Contains(out.String(), "[setup failed]"):
		return Stillborn, out.Bytes(), nil
	case bytes.Contains(out.Bytes(), []byte("FAIL")):
		return Killed, out.Bytes(), nil
	default:
		return "", nil, fmt.Errorf("run the tests: %w: %s", err, out.Bytes())
	}
}
