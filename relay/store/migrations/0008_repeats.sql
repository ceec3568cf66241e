-- Requests that made something under an idempotency key, for as long as their caller may send them again. The key stands as a keyed
-- digest; what was asked and answered is sealed.

-- +goose Up
CREATE TABLE repeats (
    workspace  TEXT   NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    principal  TEXT   NOT NULL,
    key_digest BYTEA  NOT NULL,
    expires    BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    sealed     BYTEA  NOT NULL,
    PRIMARY KEY (workspace, principal, key_digest),
    FOREIGN KEY (workspace, principal) REFERENCES principals (workspace, id) ON DELETE CASCADE
);
CREATE INDEX repeats_expires ON repeats (expires);

-- +goose Down
DROP TABLE repeats;
