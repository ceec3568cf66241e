-- What each generation changed: {"table": ["key of a row", …]}, null in place of the keys for any row of the table; '' for
-- anything at all. A reader that knows generation n reads what stands after n and leaves the rest. Ids and names of tables alone.

-- +goose Up
CREATE TABLE journal (
    generation BIGINT PRIMARY KEY,
    touched    TEXT   NOT NULL
);

-- +goose Down
DROP TABLE journal;
