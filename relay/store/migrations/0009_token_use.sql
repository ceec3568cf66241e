-- Where an API token was used from last. The address is sealed.

-- +goose Up
ALTER TABLE api_tokens ADD COLUMN last_source BYTEA;

-- +goose Down
ALTER TABLE api_tokens DROP COLUMN last_source;
