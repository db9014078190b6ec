-- +goose NO TRANSACTION
-- +goose Up
CREATE INDEX CONCURRENTLY users_email ON users (email);
ALTER TABLE users ADD COLUMN note text;

-- +goose Down
ALTER TABLE users DROP COLUMN note;
DROP INDEX CONCURRENTLY users_email;
