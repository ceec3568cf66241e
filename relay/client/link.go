package client

import "net/url"

// FirstLink is the address of the relay's page where a user sets the password by a one-time code. The code stands behind #, which
// browsers send to nobody; the page takes it out of the address at once. relay is HOST:PORT or https://HOST:PORT.
func FirstLink(relay, workspace, user, code string) (string, error) {
	u, err := parseRelay(relay)
	if err != nil {
		return "", err
	}
	return u.String() + "/account/first#" + url.Values{"workspace": {workspace}, "user": {user}, "code": {code}}.Encode(), nil
}
