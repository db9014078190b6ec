-- +goose Up
-- +goose StatementBegin
CREATE FUNCTION greeting(who text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'hello
' || who
$$;
-- +goose StatementEnd
CREATE VIEW greetings AS
  SELECT id, greeting(email) AS said -- each one

  FROM users;
-- +goose Down
DROP VIEW greetings;
DROP FUNCTION greeting;
