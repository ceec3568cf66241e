package agent

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fairleadhq/fairlead/internal/allowlist"
	"github.com/fairleadhq/fairlead/internal/config"
)

func (v *validator) database(path string, d *DatabaseProfile) {
	has := func(key string) bool { return v.c.doc.Has(config.Join(path, key)) }
	if d.Adapter == "" {
		v.fault(path, "adapter is missing", "one of: postgresql, mysql, sqlite, sqlserver, oracle, redshift")
		return
	}
	if d.Adapter == "sqlite" {
		for _, key := range []string{"host", "port", "database", "username", "password", "password_file", "tls", "ca_file"} {
			if has(key) {
				v.fault(config.Join(path, key), "a sqlite profile takes path, not "+key, "remove it")
			}
		}
		if !filepath.IsAbs(d.Path) {
			v.fault(config.Join(path, "path"), "wants the absolute path of the SQLite file", "such as path: /var/lib/app/data.db")
		}
		d.TLS = ""
	} else {
		if has("path") {
			v.fault(config.Join(path, "path"), "only a sqlite profile takes path", "use host, port and database")
		}
		if d.Host == "" {
			v.fault(path, "host is missing", "")
		} else if _, _, err := allowlist.CanonicalHost(d.Host); err != nil {
			v.fault(config.Join(path, "host"), err.Error(), "")
		}
		if has("port") && d.Port == 0 {
			v.fault(config.Join(path, "port"), "0 is not a port", "a number from 1 to 65535")
		} else if d.Port == 0 {
			d.Port = defaultPorts[d.Adapter]
		}
		if d.Username == "" {
			v.fault(path, "username is missing", "")
		}
		if d.Database == "" && d.Adapter != "mysql" {
			v.fault(path, "database is missing", "")
		}
		v.databaseTLS(path, d)
	}
	if d.MaxConns < 1 || d.MaxConns > maxMaxConns {
		v.fault(config.Join(path, "max_conns"), fmt.Sprintf("%d is not in 1 to %d", d.MaxConns, maxMaxConns), "")
	}
	if d.Allow.Dial {
		v.warn(path+".allow.dial", "native clients may open raw bytes, past the statement guard and the masks", "")
	}
}

func (v *validator) databaseTLS(path string, d *DatabaseProfile) {
	switch {
	case d.TLS == "disable" && d.CAFile != "":
		v.fault(config.Join(path, "ca_file"), "a CA file has no use with tls: disable", "remove one")
	case d.TLS == "disable" && !loopbackHost(d.Host):
		v.warn(config.Join(path, "tls"), "passwords and rows cross the network in the clear", "use verify-full")
	case d.TLS == "verify-ca":
		v.warn(config.Join(path, "tls"), "the server's name is not checked: any server with a certificate of this CA is taken for the database", "use verify-full")
	}
	if d.CAFile != "" && !filepath.IsAbs(d.CAFile) {
		d.CAFile = filepath.Join(filepath.Dir(v.c.Path), d.CAFile)
	}
}

func loopbackHost(h string) bool {
	host, addr, err := allowlist.CanonicalHost(h)
	return err == nil && (host == "localhost" || addr.IsValid() && addr.IsLoopback())
}

func (v *validator) files(path string, f *FilesProfile) {
	if !filepath.IsAbs(f.Base) || filepath.Clean(f.Base) != strings.TrimSuffix(f.Base, string(filepath.Separator)) {
		v.fault(config.Join(path, "base"), "wants the absolute path of a folder, without . and ..", "such as base: /srv/hr")
	}
	if len(f.Allow) == 0 {
		v.fault(path, "allow is missing, so nothing could be done here", "such as allow: [list, read]")
	}
	for i, verb := range f.Allow {
		if slices.Index(f.Allow, verb) != i {
			v.fault(config.Index(config.Join(path, "allow"), i), verb+" stands twice", "remove one")
		}
	}
	if v.c.doc.Has(config.Join(path, "match")) && len(f.Match) == 0 {
		v.fault(config.Join(path, "match"), "the list is empty", "remove the key to show every file")
	}
	if f.ReservePercent > 90 {
		v.fault(config.Join(path, "reserve_percent"), "is more than 90", "")
	}
}

func (v *validator) http(path string, h *HTTPProfile) {
	u, ok := plainURL(h.BaseURL)
	if !ok || strings.Contains(u.Path, "//") || strings.Contains(u.Path, "/.") {
		v.fault(config.Join(path, "base_url"), "wants http:// or https://, host, port and path, nothing else", `such as base_url: https://crm.corp:8443`)
		return
	}
	if len(h.Allow) == 0 {
		v.fault(path, "allow is missing, so nothing could be asked here", "such as allow: [ { methods: [GET], path: /api/** } ]")
	}
	if u.Scheme == "http" {
		if v.c.doc.Has(config.Join(path, "tls")) || h.CAFile != "" {
			v.fault(path, "tls and ca_file go with https only", "")
		}
		if !loopbackHost(u.Hostname()) {
			v.warn(config.Join(path, "base_url"), "requests cross the network in the clear", "use https")
		}
	} else if h.TLS == "verify-ca" {
		v.warn(config.Join(path, "tls"), "the server's name is not checked: any server with a certificate of this CA is taken for the service", "use verify-full")
	}
}
