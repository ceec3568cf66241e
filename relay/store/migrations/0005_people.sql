-- People, who sign in with a password. A person has one home workspace, whose key seals the credentials, and stands in each
-- workspace that it belongs to as a principal; users says which. Sessions are of one person in one workspace.

-- +goose Up
CREATE TABLE people (
    id      TEXT   PRIMARY KEY,
    home    TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created BIGINT NOT NULL,
    version BIGINT NOT NULL,
    sealed  BYTEA  NOT NULL
);
CREATE INDEX people_home ON people (home);

CREATE TABLE users (
    principal TEXT  PRIMARY KEY,
    workspace TEXT  NOT NULL,
    person    TEXT  NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    tag       BYTEA NOT NULL, -- keyed digest of the row: one that was written by hand makes nobody a user
    UNIQUE (workspace, person),
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE
);
CREATE INDEX users_person ON users (person);

CREATE TABLE sessions (
    id        TEXT   PRIMARY KEY,
    workspace TEXT   NOT NULL,
    principal TEXT   NOT NULL REFERENCES users (principal) ON DELETE CASCADE,
    digest    BYTEA  NOT NULL UNIQUE,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    last_used BIGINT NOT NULL,
    version   BIGINT NOT NULL,
    sealed    BYTEA  NOT NULL
);
CREATE INDEX sessions_principal ON sessions (principal);

CREATE TABLE sign_in_policies (
    workspace TEXT   PRIMARY KEY REFERENCES workspaces (id) ON DELETE CASCADE,
    version   BIGINT NOT NULL,
    sealed    BYTEA  NOT NULL
);

-- +goose Down
DROP TABLE sign_in_policies;
DROP TABLE sessions;
DROP TABLE users;
DROP TABLE people;
