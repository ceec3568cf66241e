-- Limits of workspaces and connections on what they may use of the relay. What people gave is sealed. scope is the id of the
-- connection, or of the workspace when connection is NULL.

-- +goose Up
CREATE TABLE budgets (
    scope      TEXT   PRIMARY KEY,
    workspace  TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    connection TEXT,
    version    BIGINT NOT NULL,
    sealed     BYTEA  NOT NULL,
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE
);
CREATE INDEX budgets_workspace ON budgets (workspace, connection);

-- +goose Down
DROP TABLE budgets;
