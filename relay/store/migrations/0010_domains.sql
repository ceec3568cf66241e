-- Names of workspaces' own that their people call the relay by. The name is sealed; its keyed digest lets two workspaces not have one.

-- +goose Up
CREATE TABLE domains (
    id          TEXT   PRIMARY KEY,
    workspace   TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    created     BIGINT NOT NULL,
    name_digest BYTEA  NOT NULL UNIQUE,
    sealed      BYTEA  NOT NULL
);
CREATE INDEX domains_workspace ON domains (workspace);

-- +goose Down
DROP TABLE domains;
