package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/fairleadhq/fairlead/internal/cli"
	"github.com/fairleadhq/fairlead/internal/mtls"
	"github.com/fairleadhq/fairlead/internal/secret"
	"github.com/fairleadhq/fairlead/protocol"
	"github.com/fairleadhq/fairlead/relay/client"
)

// relayFlags say where the relay is and who asks. There is no flag that holds a token: arguments are seen by other users
// of the machine.
type relayFlags struct {
	Relay     string `env:"FAIRLEAD_RELAY" group:"relay" placeholder:"HOST:PORT" help:"Address of the relay (port 8443 when none is named)."`
	TokenFile string `env:"FAIRLEAD_TOKEN_FILE" group:"relay" type:"path" placeholder:"FILE" help:"File with the API token; - reads it from standard input."`
	CA        string `name:"ca" env:"FAIRLEAD_CA" group:"relay" type:"path" placeholder:"FILE" help:"The relay's ca.pem; nothing else is trusted then."`
	Proxy     string `env:"FAIRLEAD_PROXY" group:"relay" placeholder:"URL" help:"HTTP proxy on the way to the relay, http://HOST:PORT; one with a password belongs in the environment."`
	Workspace string `short:"w" env:"FAIRLEAD_WORKSPACE" group:"relay" placeholder:"NAME" help:"Workspace; \"default\" when none is named."`
}

// A login is what "fairlead login" saves: a relay, the CA that it must show, a workspace and a token. They belong
// together: none of them is used with another relay.
type login struct {
	Relay     string `json:"relay"`
	CA        string `json:"ca,omitempty"` // PEM
	Workspace string `json:"workspace,omitempty"`
	Token     string `json:"token"`
}

// loginFile is in the user's own configuration folder.
func loginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the configuration folder: %w", err)
	}
	return filepath.Join(dir, "fairlead", "login.json"), nil
}

// readLogin gives the saved login; nil when there is none. A file that others may read is refused.
func readLogin() (*login, error) {
	path, err := loginFile()
	if err != nil {
		return nil, nil //nolint:nilerr // no home folder: nothing can have been saved
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the saved login: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, &protocol.Error{
			Code: protocol.CodeDenied, Message: fmt.Sprintf("%s holds a token and may be read by others (mode %04o)", path, info.Mode().Perm()),
			Hint: "chmod 600 " + path + ", and revoke the token if others had access",
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the saved login: %w", err)
	}
	var l login
	if err := json.Unmarshal(b, &l); err != nil || l.Relay == "" || l.Token == "" {
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: path + " is damaged", Hint: "fairlead login writes it anew"}
	}
	return &l, nil
}

// save replaces the login file in one step.
func (l *login) save() (string, error) {
	path, err := loginFile()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("save the login: %w", err)
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return "", fmt.Errorf("save the login: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".login-*") // 0600
	if err != nil {
		return "", fmt.Errorf("save the login: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(b, '\n'))
	if e := tmp.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("save the login: %w", err)
	}
	return path, nil
}

// token is the token that was given for this command: by file, standard input or environment; zero when none was.
func (r *relayFlags) token(t *cli.Term) (secret.Bytes, error) {
	var token secret.Bytes
	var err error
	if r.TokenFile != "" {
		token, err = t.ReadSecretFile(r.TokenFile, "API token")
	} else {
		token = secret.FromString(strings.TrimSpace(os.Getenv("FAIRLEAD_TOKEN")))
	}
	if err == nil && bytes.HasPrefix(token.Expose(), []byte(mtls.JoinPrefix)) {
		return secret.Bytes{}, &protocol.Error{Code: protocol.CodeInvalid, Message: "this is a join token (flj_), not an API token (flt_)", Hint: "it was not sent; a join token is for fairlead-agent enroll"}
	}
	return token, err
}

// about names what was asked for where the relay, which hides what a caller may not see, does not.
func about(name string, err error) error {
	var e *protocol.Error
	if errors.As(err, &e) && e.Origin == protocol.OriginRelay && (e.Code == protocol.CodeNotFound || e.Code == protocol.CodeConflict) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return err
}

// open gives a client for the relay that flags, environment or the saved login name. The caller closes it.
func (r *relayFlags) open(t *cli.Term) (*client.Client, error) {
	conf := client.Config{Relay: r.Relay, CAFile: r.CA, Proxy: r.Proxy, Workspace: r.Workspace, UserAgent: userAgent()}
	var err error
	if conf.Token, err = r.token(t); err != nil {
		return nil, err
	}
	if conf.Relay == "" || conf.Token.IsZero() {
		saved, err := readLogin()
		if err != nil {
			return nil, err
		}
		if saved != nil && (conf.Relay == "" || sameRelay(conf.Relay, saved.Relay)) {
			if err := saved.fill(&conf); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case conf.Relay == "":
		return nil, &protocol.Error{Code: protocol.CodeInvalid, Message: "no relay is named", Hint: "fairlead login, or --relay with --token-file and --ca"}
	case conf.Token.IsZero():
		return nil, &protocol.Error{Code: protocol.CodeUnauthenticated, Message: "no API token for " + conf.Relay, Hint: "fairlead login, --token-file or FAIRLEAD_TOKEN"}
	}
	return client.New(conf)
}

func (l *login) fill(conf *client.Config) error {
	conf.Relay = l.Relay
	if conf.Token.IsZero() {
		conf.Token = secret.FromString(l.Token)
	}
	if conf.Workspace == "" {
		conf.Workspace = l.Workspace
	}
	if conf.CAFile == "" && l.CA != "" {
		conf.CA = x509.NewCertPool()
		if !conf.CA.AppendCertsFromPEM([]byte(l.CA)) {
			return &protocol.Error{Code: protocol.CodeInvalid, Message: "the saved login holds no CA", Hint: "fairlead login writes it anew"}
		}
	}
	return nil
}

// sameRelay compares two addresses in their full form.
func sameRelay(a, b string) bool {
	x, errX := client.New(client.Config{Relay: a})
	y, errY := client.New(client.Config{Relay: b})
	return errX == nil && errY == nil && x.Relay() == y.Relay()
}

func userAgent() string { return "fairlead/" + cli.Build("fairlead").Version }

// stamp prints a time for people: UTC, to the second.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05Z")
}

// stampText is stamp for a time that came as RFC 3339. What is none stays as it is.
func stampText(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return s
	}
	return stamp(t)
}

func stampPtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return stamp(*t)
}

// lifetime is a duration that also takes days: "30m", "12h", "7d".
type lifetime time.Duration

// UnmarshalText implements encoding.TextUnmarshaler, by which the parser reads it.
func (l *lifetime) UnmarshalText(b []byte) error {
	text := string(b)
	if days, ok := bytes.CutSuffix(b, []byte("d")); ok {
		text = string(days) + "h"
	}
	d, err := time.ParseDuration(text)
	if text != string(b) {
		if d > 10*365*time.Hour {
			err = errors.New("too long")
		}
		d *= 24
	}
	if err != nil || d < time.Second || d > 10*365*24*time.Hour {
		return fmt.Errorf("%q is not a lifetime from 1s to 10 years; want 30m, 12h or 7d", b)
	}
	*l = lifetime(d)
	return nil
}

func (l lifetime) seconds() int64 { return int64(time.Duration(l) / time.Second) }
