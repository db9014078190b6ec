-- +goose Up
BEGIN;
CREATE TYPE mood AS ENUM ('well', 'unwell');
ALTER TABLE users ADD COLUMN mood mood;
COMMIT;

-- +goose Down
ALTER TABLE users DROP COLUMN mood;
DROP TYPE mood;
-- +goose NO TRANSACTION
