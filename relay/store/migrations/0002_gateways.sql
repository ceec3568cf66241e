-- TCP ports at the relay that lead to a connection's target. What people gave (address, allowlist, TLS, CA) is sealed; the
-- keyed digest of the address keeps two gateways from the same port.

-- +goose Up
CREATE TABLE gateways (
    connection     TEXT   PRIMARY KEY,
    workspace      TEXT   NOT NULL,
    id             TEXT   NOT NULL UNIQUE,
    version        BIGINT NOT NULL,
    address_digest BYTEA  NOT NULL UNIQUE,
    sealed         BYTEA  NOT NULL,
    FOREIGN KEY (workspace, connection) REFERENCES connections (workspace, id) ON DELETE CASCADE
);
CREATE INDEX gateways_workspace ON gateways (workspace, connection);

-- +goose Down
DROP TABLE gateways;
