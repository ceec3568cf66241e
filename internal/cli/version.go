package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/fairleadhq/fairlead/protocol"
)

// BuildInfo says what a binary was built from.
type BuildInfo struct {
	Program  string `json:"program"`
	Version  string `json:"version"`            // module version; "devel" when the build knows none
	Revision string `json:"revision,omitempty"` // of the source
	Time     string `json:"time,omitempty"`     // of the revision, RFC 3339
	Modified bool   `json:"modified,omitempty"` // the source had local changes
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Protocol int    `json:"protocol"`
}

// Build reads the information that the Go tool left in the running binary.
func Build(program string) BuildInfo {
	b := BuildInfo{
		Program: program, Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Protocol: protocol.Version,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		b.Version = v
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

type versionCommand struct {
	Output
	name, version string
}

func (c *versionCommand) Examples() []string {
	return []string{c.name + " version", c.name + " version --output json"}
}

func (c *versionCommand) Run(t *Term) error {
	b := Build(c.name)
	b.Version = c.version
	if c.JSON() {
		return t.JSON(b)
	}
	t.Printf("%s %s\n", b.Program, b.Version)
	if b.Revision != "" {
		local := ""
		if b.Modified {
			local = ", with local changes"
		}
		t.Printf("  revision  %s (%s%s)\n", b.Revision, b.Time, local)
	}
	t.Printf("  go        %s %s\n  protocol  %d\n", b.Go, b.Platform, b.Protocol)
	return nil
}
