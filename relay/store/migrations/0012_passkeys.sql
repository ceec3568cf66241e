-- Passkeys (WebAuthn) of people. What they are called, the key, its counter and when they were used is sealed under the key of the
-- person's home workspace; the digest finds one by the id that an authenticator gives it, and keeps two people from having one.

-- +goose Up
CREATE TABLE passkeys (
    id      TEXT   PRIMARY KEY,
    person  TEXT   NOT NULL REFERENCES people (id) ON DELETE CASCADE,
    home    TEXT   NOT NULL,
    digest  BYTEA  NOT NULL UNIQUE,
    created BIGINT NOT NULL,
    version BIGINT NOT NULL,
    sealed  BYTEA  NOT NULL
);
CREATE INDEX passkeys_person ON passkeys (person);

-- +goose Down
DROP TABLE passkeys;
