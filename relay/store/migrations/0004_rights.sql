-- Custom roles, teams of principals, and grants with more to them: to a team, on an environment, until a time, from networks.
-- What people gave (names, actions, networks) is sealed. A grant's role is a system role's name or a custom role's id.

-- +goose Up
CREATE TABLE roles (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, name_digest),
    UNIQUE (workspace, id)
);

CREATE TABLE teams (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, name_digest),
    UNIQUE (workspace, id)
);

CREATE TABLE team_members (
    workspace TEXT   NOT NULL,
    team      TEXT   NOT NULL,
    principal TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    tag       BYTEA  NOT NULL, -- keyed digest of the row: one that was written by hand gives nothing
    PRIMARY KEY (team, principal),
    FOREIGN KEY (workspace, team) REFERENCES teams (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE
);
CREATE INDEX team_members_principal ON team_members (workspace, principal);

-- connection NULL and environment '': the whole workspace. until 0: without end. sealed: the networks, NULL for everywhere.
CREATE TABLE grants_next (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL,
    principal   TEXT,
    team        TEXT,
    role        TEXT   NOT NULL,
    environment TEXT   NOT NULL DEFAULT '',
    connection  TEXT,
    until       BIGINT NOT NULL DEFAULT 0,
    created     BIGINT NOT NULL,
    sealed      BYTEA,
    tag         BYTEA  NOT NULL, -- keyed digest of the row: one that was written by hand gives nothing
    CHECK ((principal IS NULL) <> (team IS NULL)),
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, team) REFERENCES teams (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE
);
INSERT INTO grants_next (id, workspace, principal, role, connection, created, tag)
    SELECT id, workspace, principal, role, connection, created, tag FROM grants;
DROP TABLE grants;
ALTER TABLE grants_next RENAME TO grants;
CREATE INDEX grants_principal ON grants (workspace, principal);
CREATE INDEX grants_team ON grants (workspace, team);
CREATE INDEX grants_connection ON grants (workspace, connection);

-- +goose Down
-- What the release before does not know (teams, environments, ends, networks, custom roles, owners) would be wider there: it goes.
CREATE TABLE grants_before (
    id         TEXT   PRIMARY KEY,
    workspace  TEXT   NOT NULL,
    principal  TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    connection TEXT,
    created    BIGINT NOT NULL,
    tag        BYTEA  NOT NULL,
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE
);
INSERT INTO grants_before (id, workspace, principal, role, connection, created, tag)
    SELECT id, workspace, principal, role, connection, created, tag FROM grants
    WHERE principal IS NOT NULL AND environment = '' AND until = 0 AND sealed IS NULL AND role IN ('admin', 'operator', 'analyst');
DROP TABLE grants;
ALTER TABLE grants_before RENAME TO grants;
CREATE INDEX grants_principal ON grants (workspace, principal);
CREATE INDEX grants_connection ON grants (workspace, connection);
DROP TABLE team_members;
DROP TABLE teams;
DROP TABLE roles;
