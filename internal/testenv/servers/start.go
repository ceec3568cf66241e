package servers

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const adminPassword = "fairlead-test"

func startPostgreSQL() (*Server, error) {
	places := []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"}
	postgres, err := find("postgres", places...)
	if err != nil {
		return nil, err
	}
	initdb, err := find("initdb", filepath.Dir(postgres))
	if err != nil {
		return nil, err
	}
	psql, err := find("psql", append([]string{filepath.Dir(postgres)}, places...)...)
	if err != nil {
		return nil, err
	}
	owner, err := lookup("postgres")
	if err != nil {
		return nil, err
	}
	dir, err := folder("flpg", owner)
	if err != nil {
		return nil, err
	}
	s, err := setUpPostgreSQL(owner, dir, postgres, initdb, psql)
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return s, err
}

func setUpPostgreSQL(owner *account, dir, postgres, initdb, psql string) (*Server, error) {
	pwfile, data := filepath.Join(dir, "pw"), filepath.Join(dir, "data")
	if err := os.WriteFile(pwfile, []byte(adminPassword+"\n"), 0o600); err != nil {
		return nil, err
	}
	cert, err := certificate(owner, dir)
	if err != nil {
		return nil, err
	}
	if err := owner.own(pwfile); err != nil {
		return nil, err
	}
	if err := run(owner, dir, initdb, "-D", data, "-U", "postgres", "--pwfile", pwfile, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "-N"); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Host: "127.0.0.1", Port: port, User: "postgres", Password: adminPassword, Database: "test", Socket: dir, CAFile: cert.ca}
	s.AdminDSN = "postgres://postgres:" + adminPassword + "@" + s.Addr() + "/test?sslmode=disable"
	probe := func(sql string) error {
		dsn := "postgres://postgres:" + adminPassword + "@" + s.Addr() + "/postgres?sslmode=disable&connect_timeout=5"
		return run(owner, dir, psql, "-X", "-q", "-d", dsn, "-c", sql)
	}
	s.stop, err = launch(owner, dir, func() error { return probe("select 1") }, postgres, "-D", data, "-h", s.Host, "-p", strconv.Itoa(port), "-k", dir,
		"-F", "-c", "max_connections=100", "-c", "ssl=on", "-c", "ssl_cert_file="+cert.chain, "-c", "ssl_key_file="+cert.key, "-c", "log_statement=none")
	if err != nil {
		return nil, err
	}
	if err := probe("create database test"); err != nil {
		_ = s.stop()
		return nil, err
	}
	return s, nil
}

func startMariaDB() (*Server, error) {
	places := []string{"/usr/sbin", "/usr/libexec", "/usr/bin", "/opt/homebrew/opt/mariadb/bin", "/usr/local/opt/mariadb/bin"}
	mariadbd, err := find("mariadbd", places...)
	if err != nil {
		return nil, err
	}
	install, err := find("mariadb-install-db", places...)
	if err != nil {
		return nil, err
	}
	client, err := find("mariadb", places...)
	if err != nil {
		return nil, err
	}
	owner, err := lookup("mysql")
	if err != nil {
		return nil, err
	}
	dir, err := folder("flmy", owner)
	if err != nil {
		return nil, err
	}
	s, err := setUpMariaDB(owner, dir, mariadbd, install, client)
	if err != nil {
		_ = os.RemoveAll(dir)
	}
	return s, err
}

func setUpMariaDB(owner *account, dir, mariadbd, install, client string) (*Server, error) {
	data := filepath.Join(dir, "data")
	cert, err := certificate(owner, dir)
	if err != nil {
		return nil, err
	}
	if err := run(owner, dir, install, "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve", "--tmpdir="+dir); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s := &Server{Host: "127.0.0.1", Port: port, User: "admin", Password: adminPassword, Database: "test", Socket: filepath.Join(dir, "s"), CAFile: cert.ca}
	s.AdminDSN = "admin:" + adminPassword + "@tcp(" + s.Addr() + ")/test"
	// Socket and password stand in a file, for the command line is readable by all.
	conf := filepath.Join(dir, "client.cnf")
	if err := os.WriteFile(conf, []byte("[client]\nsocket="+s.Socket+"\nuser=root\n"), 0o600); err != nil {
		return nil, err
	}
	if err := owner.own(conf); err != nil {
		return nil, err
	}
	sql := func(text string) error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, client, "--defaults-file="+conf)
		cmd.Dir = dir
		owner.use(cmd)
		cmd.Stdin = bytes.NewReader([]byte(text))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("mariadb client: %w\n%s", err, out)
		}
		return nil
	}
	s.stop, err = launch(owner, dir, func() error { return sql("select 1;") }, mariadbd, "--no-defaults", "--datadir="+data, "--socket="+s.Socket,
		"--tmpdir="+dir, "--port="+strconv.Itoa(port), "--bind-address="+s.Host, "--skip-name-resolve", "--pid-file="+filepath.Join(dir, "pid"), "--local-infile=1",
		"--character-set-server=utf8mb4", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--secure-file-priv="+dir,
		"--ssl-cert="+cert.chain, "--ssl-key="+cert.key, "--ssl-ca="+cert.ca)
	if err != nil {
		return nil, err
	}
	setup := "create database test; create user 'admin'@'127.0.0.1' identified by '" + adminPassword + "'; create user 'admin'@'localhost' identified by '" +
		adminPassword + "'; grant all on *.* to 'admin'@'127.0.0.1' with grant option; grant all on *.* to 'admin'@'localhost' with grant option;"
	if err := sql(setup); err != nil {
		_ = s.stop()
		return nil, err
	}
	return s, nil
}

// URL is the server as a URL with another user and database, for clients that want one.
func (s *Server) URL(scheme, username, password, database string) string {
	return (&url.URL{Scheme: scheme, User: url.UserPassword(username, password), Host: s.Addr(), Path: "/" + database}).String()
}

// StartPostgreSQL starts a server for a program that is no test. The caller stops it; it also ends with the process.
func StartPostgreSQL() (*Server, func() error, error) {
	s, err := startPostgreSQL()
	if err != nil {
		return nil, nil, err
	}
	return s, s.stop, nil
}
