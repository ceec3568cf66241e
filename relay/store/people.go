package store

import "database/sql"

// Person is who signs in with a password. Credentials are in Sealed.
type Person struct {
	ID, Home string // Home is a workspace
	Created  int64
	Version  int64
	Sealed   []byte
}

// User says that a principal of a workspace is a person.
type User struct {
	Principal, Workspace, Person string
	Tag                          []byte
}

// Session is a person's in a workspace, found by the keyed digest of its text.
type Session struct {
	ID, Workspace, Principal   string
	Digest                     []byte
	Created, Expires, LastUsed int64
	Version                    int64
	Sealed                     []byte
}

// SignInPolicy is what a workspace demands of who signs in.
type SignInPolicy struct {
	Workspace string
	Version   int64
	Sealed    []byte
}

const personColumns = "id, home, created, version, sealed"

func scanPerson(r *sql.Rows, v *Person) error {
	return r.Scan(&v.ID, &v.Home, &v.Created, &v.Version, &v.Sealed)
}

func (l *loader) people() {
	part(l, "people", personColumns, "id", func(s *State) *[]Person { return &s.People }, scanPerson, func(v *Person) string { return v.ID })
	part(l, "users", "principal, workspace, person, tag", "principal", func(s *State) *[]User { return &s.Users },
		func(r *sql.Rows, v *User) error { return r.Scan(&v.Principal, &v.Workspace, &v.Person, &v.Tag) }, func(v *User) string { return v.Principal })
	part(l, "sessions", "id, workspace, principal, digest, created, expires, last_used, version, sealed", "id", func(s *State) *[]Session { return &s.Sessions },
		func(r *sql.Rows, v *Session) error {
			return r.Scan(&v.ID, &v.Workspace, &v.Principal, &v.Digest, &v.Created, &v.Expires, &v.LastUsed, &v.Version, &v.Sealed)
		}, func(v *Session) string { return v.ID })
	part(l, "sign_in_policies", policyColumns, "workspace", func(s *State) *[]SignInPolicy { return &s.SignInPolicies }, scanPolicy, nil)
	l.passkeys()
}

// Person reads one.
func (t *Tx) Person(id string) (Person, error) {
	return one(list(t, scanPerson, "SELECT "+personColumns+" FROM people WHERE id = ?", id))
}

// InsertPerson adds a person.
func (t *Tx) InsertPerson(v Person) error {
	return t.touch("people", v.ID).exec("INSERT INTO people (id, home, created, version, sealed) VALUES (?, ?, ?, ?, ?)", v.ID, v.Home, v.Created, v.Version, v.Sealed)
}

// UpdatePerson writes a person's body; v.Version must be the next one, else ErrNotFound.
func (t *Tx) UpdatePerson(v Person) error {
	return t.touch("people", v.ID).exec("UPDATE people SET version = ?, sealed = ? WHERE id = ? AND version = ?", v.Version, v.Sealed, v.ID, v.Version-1)
}

// InsertUser makes a principal a person's.
func (t *Tx) InsertUser(v User) error {
	return t.touch("users", v.Principal).exec("INSERT INTO users (principal, workspace, person, tag) VALUES (?, ?, ?, ?)", v.Principal, v.Workspace, v.Person, v.Tag)
}

// deletePerson removes a person with all that it is in any workspace.
func (t *Tx) deletePerson(id string) error {
	if _, err := t.count("DELETE FROM principals WHERE id IN (SELECT principal FROM users WHERE person = ?)", id); err != nil {
		return err
	}
	return t.exec("DELETE FROM people WHERE id = ?", id)
}

// DeleteUser removes a principal that is a person's, with its grants, tokens and sessions; at home, the person with what it is in
// other workspaces, too.
func (t *Tx) DeleteUser(workspace, principal string) error {
	var person, home string
	err := t.row("SELECT p.id, p.home FROM users u JOIN people p ON p.id = u.person WHERE u.workspace = ? AND u.principal = ?", workspace, principal).Scan(&person, &home)
	switch {
	case err != nil:
		return wrap(err)
	case home == workspace:
		return t.deletePerson(person)
	}
	return t.exec("DELETE FROM principals WHERE workspace = ? AND id = ?", workspace, principal)
}

// InsertSession adds a session.
func (t *Tx) InsertSession(v Session) error {
	return t.touch("sessions", v.ID).exec(`INSERT INTO sessions (id, workspace, principal, digest, created, expires, last_used, version, sealed)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, v.ID, v.Workspace, v.Principal, v.Digest, v.Created, v.Expires, v.LastUsed, v.Version, v.Sealed)
}

// UsedSession moves a session's time of last use forward.
func (t *Tx) UsedSession(id string, at int64) error {
	_, err := t.silent().count("UPDATE sessions SET last_used = ? WHERE id = ? AND last_used < ?", at, id, at)
	return err
}

// DeleteSession ends one session.
func (t *Tx) DeleteSession(workspace, id string) error {
	return t.touch("sessions", id).exec("DELETE FROM sessions WHERE workspace = ? AND id = ?", workspace, id)
}

// DeleteSessionsOf ends all sessions of a person, in all workspaces, but one; "" ends all. It counts them.
func (t *Tx) DeleteSessionsOf(person, but string) (int64, error) {
	return t.count("DELETE FROM sessions WHERE id <> ? AND principal IN (SELECT principal FROM users WHERE person = ?)", but, person)
}

// TrimSessions drops the sessions that expired before a time, and those of a principal beyond its newest few.
func (t *Tx) TrimSessions(principal string, keep int, before int64) error {
	if _, err := t.count("DELETE FROM sessions WHERE expires < ?", before); err != nil {
		return err
	}
	_, err := t.count("DELETE FROM sessions WHERE principal = ? AND id NOT IN (SELECT id FROM sessions WHERE principal = ? ORDER BY created DESC, id LIMIT ?)",
		principal, principal, keep)
	return err
}

const policyColumns = "workspace, version, sealed"

func scanPolicy(r *sql.Rows, v *SignInPolicy) error {
	return r.Scan(&v.Workspace, &v.Version, &v.Sealed)
}

// SignInPolicy reads a workspace's; ErrNotFound when none was set.
func (t *Tx) SignInPolicy(workspace string) (SignInPolicy, error) {
	return one(list(t, scanPolicy, "SELECT "+policyColumns+" FROM sign_in_policies WHERE workspace = ?", workspace))
}

// PutSignInPolicy writes a workspace's, or the next version of it; ErrNotFound: it was changed meanwhile.
func (t *Tx) PutSignInPolicy(v SignInPolicy) error {
	return t.exec(`INSERT INTO sign_in_policies (workspace, version, sealed) VALUES (?, ?, ?)
		ON CONFLICT (workspace) DO UPDATE SET version = excluded.version, sealed = excluded.sealed
		WHERE sign_in_policies.version = excluded.version - 1`, v.Workspace, v.Version, v.Sealed)
}
