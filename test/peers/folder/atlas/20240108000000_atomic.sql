-- atlas:nolint BC102
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT i; SELECT i * 2; END;
-- atlas:nolint DS103
ALTER TABLE users ADD COLUMN name text;
