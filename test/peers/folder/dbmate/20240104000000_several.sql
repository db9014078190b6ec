-- migrate:up transaction:false
ALTER TABLE users ADD COLUMN note text;
ALTER TABLE users ADD COLUMN name text NOT NULL DEFAULT '';

--migrate:down
ALTER TABLE users DROP COLUMN name;
ALTER TABLE users DROP COLUMN note
