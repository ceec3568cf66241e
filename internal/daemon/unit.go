package daemon

import (
	"fmt"
	"path"
	"strings"
)

// unitMark is the first line of a unit of ours; one without it is never replaced or removed.
const unitMark = "# Written by \"service install\" of "

// unit is the systemd unit. It holds no secret and is readable by all. Its hardening is what the program can live with:
// no capability (but one for low ports), no device, no other program's memory, no kernel setting, no executable memory.
// RestrictAddressFamilies lists netlink, for asking the kernel for the machine's own addresses needs it.
func (s Service) unit() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("%s%s; the next install replaces it.", unitMark, s.Name)
	line("# Local changes: systemctl edit %s", s.Name)
	line("[Unit]")
	line("Description=%s", percent(s.Description))
	line("Documentation=https://github.com/fairleadhq/fairlead")
	line("Wants=network-online.target")
	line("After=network-online.target")
	line("StartLimitIntervalSec=0")
	line("")
	line("[Service]")
	line("Type=notify")
	line("NotifyAccess=main")
	line("User=%s", s.user())
	line("Group=%s", s.user())
	line("ExecStart=%s", execLine(append([]string{s.Executable}, s.Args...)))
	line("ExecReload=/bin/kill -HUP $MAINPID")
	line("Restart=always")
	line("RestartSec=5")
	line("TimeoutStartSec=90")
	line("TimeoutStopSec=%d", int(s.drain().Seconds())+10)
	line("KillMode=mixed")
	line("LimitNOFILE=65536")
	line("LimitCORE=0")
	if rest, ok := strings.CutPrefix(path.Clean(s.DataDir), "/var/lib/"); ok {
		line("StateDirectory=%s", quote(rest, false))
		line("StateDirectoryMode=0700")
	} else {
		line("ReadWritePaths=%s", quote(s.DataDir, false))
	}
	if s.FolderAccess {
		line("# The folders that are served are named by the configuration while it runs: what the account may write is")
		line("# left to their rights. To seal everything else: systemctl edit, ProtectSystem=strict, ReadWritePaths=...")
		line("ProtectSystem=full")
	} else {
		line("ProtectSystem=strict")
	}
	if s.LowPorts {
		line("AmbientCapabilities=CAP_NET_BIND_SERVICE")
		line("CapabilityBoundingSet=CAP_NET_BIND_SERVICE")
	} else {
		line("AmbientCapabilities=")
		line("CapabilityBoundingSet=")
		line("PrivateUsers=yes")
	}
	b.WriteString(hardening)
	line("")
	line("[Install]")
	line("WantedBy=multi-user.target")
	return b.String()
}

const hardening = `NoNewPrivileges=yes
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
ProcSubset=pid
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
UMask=0077
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
`

func (s Service) user() string {
	if s.User != "" {
		return s.User
	}
	return s.Name
}

// execLine quotes each word for ExecStart: no specifier, variable or escape of systemd is left in it.
func execLine(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = quote(w, true)
	}
	return strings.Join(out, " ")
}

// quote writes one word of a unit's line; command lines expand variables, path lists do not.
func quote(w string, variables bool) string {
	r := []string{`\`, `\\`, `"`, `\"`, "%", "%%"}
	if variables {
		r = append(r, "$", "$$")
	}
	q := strings.NewReplacer(r...).Replace(w)
	if q == "" || strings.ContainsAny(q, " \t'\"\\;") {
		return `"` + q + `"`
	}
	return q
}

// unquote undoes quote for a path list of one word.
func unquote(q string) string {
	if len(q) >= 2 && q[0] == '"' && q[len(q)-1] == '"' {
		q = q[1 : len(q)-1]
	}
	return strings.NewReplacer(`\\`, `\`, `\"`, `"`, "%%", "%").Replace(q)
}

func percent(s string) string { return strings.ReplaceAll(s, "%", "%%") }
