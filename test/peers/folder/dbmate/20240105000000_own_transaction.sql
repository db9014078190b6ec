--   migrate:up   transaction:false
BEGIN;
CREATE TYPE mood AS ENUM ('well', 'unwell');
ALTER TABLE users ADD COLUMN mood mood;
COMMIT;

-- migrate:down
ALTER TABLE users DROP COLUMN mood;
DROP TYPE mood;
