-- What the ACME client keeps: its account, and certificates with their keys, each under a key of its own making. Both are sealed.

-- +goose Up
CREATE TABLE acme (
    key_digest BYTEA  PRIMARY KEY,
    modified   BIGINT NOT NULL,
    version    BIGINT NOT NULL,
    sealed     BYTEA  NOT NULL
);

-- +goose Down
DROP TABLE acme;
