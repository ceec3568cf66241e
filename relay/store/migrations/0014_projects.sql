-- Projects with their folders, which connections stand in one, and grants on them. Names and paths are sealed; their keyed digests
-- keep two from having one.

-- +goose Up
CREATE TABLE projects (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, name_digest),
    UNIQUE (workspace, id)
);

-- parent NULL: it stands in the project itself.
CREATE TABLE folders (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    project     TEXT   NOT NULL,
    parent      TEXT,
    created     BIGINT NOT NULL,
    path_digest BYTEA  NOT NULL, -- of project and path
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, path_digest),
    UNIQUE (workspace, project, id),
    FOREIGN KEY (workspace, project) REFERENCES projects (workspace, id),
    FOREIGN KEY (workspace, project, parent) REFERENCES folders (workspace, project, id)
);
CREATE INDEX folders_parent ON folders (workspace, project, parent);

-- A connection without a row stands in no project. folder NULL: in the project itself.
CREATE TABLE placements (
    connection TEXT  PRIMARY KEY,
    workspace  TEXT  NOT NULL,
    project    TEXT  NOT NULL,
    folder     TEXT,
    tag        BYTEA NOT NULL, -- keyed digest of the row: one that was written by hand places nothing
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, project) REFERENCES projects (workspace, id),
    FOREIGN KEY (workspace, project, folder) REFERENCES folders (workspace, project, id)
);
CREATE INDEX placements_project ON placements (workspace, project, folder);

-- project and folder NULL: not on one. With environment: on what of it stands in that environment.
CREATE TABLE grants_next (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL,
    principal   TEXT,
    team        TEXT,
    role        TEXT   NOT NULL,
    environment TEXT   NOT NULL DEFAULT '',
    project     TEXT,
    folder      TEXT,
    connection  TEXT,
    until       BIGINT NOT NULL DEFAULT 0,
    created     BIGINT NOT NULL,
    sealed      BYTEA,
    tag         BYTEA  NOT NULL, -- keyed digest of the row: one that was written by hand gives nothing
    CHECK ((principal IS NULL) <> (team IS NULL)),
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, team) REFERENCES teams (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, project) REFERENCES projects (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, project, folder) REFERENCES folders (workspace, project, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE
);
INSERT INTO grants_next (id, workspace, principal, team, role, environment, connection, until, created, sealed, tag)
    SELECT id, workspace, principal, team, role, environment, connection, until, created, sealed, tag FROM grants;
DROP TABLE grants;
ALTER TABLE grants_next RENAME TO grants;
CREATE INDEX grants_principal ON grants (workspace, principal);
CREATE INDEX grants_team ON grants (workspace, team);
CREATE INDEX grants_project ON grants (workspace, project, folder);
CREATE INDEX grants_connection ON grants (workspace, connection);

-- +goose Down
-- What is given on a project would be wider in the release before, which does not know them: it goes.
CREATE TABLE grants_before (
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
INSERT INTO grants_before (id, workspace, principal, team, role, environment, connection, until, created, sealed, tag)
    SELECT id, workspace, principal, team, role, environment, connection, until, created, sealed, tag FROM grants WHERE project IS NULL;
DROP TABLE grants;
ALTER TABLE grants_before RENAME TO grants;
CREATE INDEX grants_principal ON grants (workspace, principal);
CREATE INDEX grants_team ON grants (workspace, team);
CREATE INDEX grants_connection ON grants (workspace, connection);
DROP TABLE placements;
DROP TABLE folders;
DROP TABLE projects;
