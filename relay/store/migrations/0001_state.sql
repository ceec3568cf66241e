-- The relay's state. In the clear stand only ids, times, states, counters and keyed digests; every other column that holds
-- what people gave is sealed (…_sealed, …_wrapped). Times are Unix milliseconds, 0 = never. "version" counts the changes of a
-- row and is part of what its sealed columns are bound to.

-- +goose Up
CREATE TABLE generation (
    one   BIGINT PRIMARY KEY CHECK (one = 1),
    value BIGINT NOT NULL
);
INSERT INTO generation (one, value) VALUES (1, 1);

CREATE TABLE installation (
    one         BIGINT PRIMARY KEY CHECK (one = 1),
    id          TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    kek_id      TEXT   NOT NULL,
    key_wrapped BYTEA  NOT NULL
);

CREATE TABLE relays (
    id      TEXT   PRIMARY KEY,
    created BIGINT NOT NULL,
    version BIGINT NOT NULL,
    sealed  BYTEA  NOT NULL
);

-- scope '' is the root, else a workspace's intermediate. The certificates are public.
CREATE TABLE authorities (
    scope      TEXT   PRIMARY KEY,
    created    BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    chain      BYTEA  NOT NULL,
    key_sealed BYTEA  NOT NULL
);

-- scope '' is the installation, else a workspace.
CREATE TABLE settings (
    scope   TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    version BIGINT NOT NULL,
    sealed  BYTEA  NOT NULL,
    PRIMARY KEY (scope, name)
);

CREATE TABLE workspaces (
    id          TEXT   PRIMARY KEY,
    state       TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL UNIQUE,
    kek_id      TEXT   NOT NULL,
    key_wrapped BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL
);

CREATE TABLE agent_groups (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, name_digest),
    UNIQUE (workspace, id)
);

CREATE TABLE agents (
    id         TEXT   PRIMARY KEY,
    workspace  TEXT   NOT NULL,
    group_id   TEXT   NOT NULL,
    state      TEXT   NOT NULL CHECK (state IN ('awaiting', 'active', 'disabled')),
    created    BIGINT NOT NULL,
    first_seen BIGINT NOT NULL,
    last_seen  BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    sealed     BYTEA  NOT NULL,
    UNIQUE (workspace, id),
    FOREIGN KEY (workspace, group_id) REFERENCES agent_groups (workspace, id) ON DELETE CASCADE
);
CREATE INDEX agents_group ON agents (workspace, group_id);

CREATE TABLE certificates (
    agent     TEXT   NOT NULL REFERENCES agents (id) ON DELETE CASCADE,
    serial    TEXT   NOT NULL,
    spki      BYTEA  NOT NULL,
    issued    BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    proven    BIGINT NOT NULL,
    PRIMARY KEY (agent, serial)
);

-- How far the relay holds an agent's audit log. Written with each batch of events, so apart from the agent's row.
CREATE TABLE audit_cursors (
    agent TEXT   PRIMARY KEY REFERENCES agents (id) ON DELETE CASCADE,
    seq   BIGINT NOT NULL,
    hash  TEXT   NOT NULL
);

CREATE TABLE principals (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    kind        TEXT   NOT NULL CHECK (kind IN ('user', 'service')),
    state       TEXT   NOT NULL CHECK (state IN ('active', 'disabled')),
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, name_digest),
    UNIQUE (workspace, id)
);

CREATE TABLE join_tokens (
    id         TEXT   PRIMARY KEY,
    workspace  TEXT   NOT NULL,
    group_id   TEXT   NOT NULL,
    digest     BYTEA  NOT NULL UNIQUE,
    created    BIGINT NOT NULL,
    created_by TEXT   NOT NULL,
    expires    BIGINT NOT NULL,
    used_at    BIGINT,
    used_by    TEXT,
    FOREIGN KEY (workspace, group_id) REFERENCES agent_groups (workspace, id) ON DELETE CASCADE
);

CREATE TABLE api_tokens (
    id        TEXT   PRIMARY KEY,
    workspace TEXT   NOT NULL,
    principal TEXT   NOT NULL,
    digest    BYTEA  NOT NULL UNIQUE,
    verifier  TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL,
    revoked   BIGINT NOT NULL,
    last_used BIGINT NOT NULL,
    version   BIGINT NOT NULL,
    sealed    BYTEA  NOT NULL,
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE
);
CREATE INDEX api_tokens_principal ON api_tokens (workspace, principal);

CREATE TABLE connections (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL,
    group_id    TEXT   NOT NULL,
    created     BIGINT NOT NULL,
    version     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL,
    sealed      BYTEA  NOT NULL,
    UNIQUE (workspace, name_digest),
    UNIQUE (workspace, id),
    FOREIGN KEY (workspace, group_id) REFERENCES agent_groups (workspace, id)
);
CREATE INDEX connections_group ON connections (workspace, group_id);

-- connection NULL: the whole workspace.
CREATE TABLE grants (
    id         TEXT   PRIMARY KEY,
    workspace  TEXT   NOT NULL,
    principal  TEXT   NOT NULL,
    role       TEXT   NOT NULL,
    connection TEXT,
    created    BIGINT NOT NULL,
    tag        BYTEA  NOT NULL, -- keyed digest of the row: one that was written by hand gives nothing
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE,
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE
);
CREATE INDEX grants_principal ON grants (workspace, principal);
CREATE INDEX grants_connection ON grants (workspace, connection);

CREATE TABLE allowlist (
    id        TEXT   PRIMARY KEY,
    workspace TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    version   BIGINT NOT NULL,
    sealed    BYTEA  NOT NULL
);
CREATE INDEX allowlist_workspace ON allowlist (workspace);

-- +goose Down
DROP TABLE allowlist;
DROP TABLE grants;
DROP TABLE connections;
DROP TABLE api_tokens;
DROP TABLE join_tokens;
DROP TABLE principals;
DROP TABLE audit_cursors;
DROP TABLE certificates;
DROP TABLE agents;
DROP TABLE agent_groups;
DROP TABLE workspaces;
DROP TABLE settings;
DROP TABLE authorities;
DROP TABLE relays;
DROP TABLE installation;
DROP TABLE generation;
