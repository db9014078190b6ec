-- +goose Up
CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY, email text NOT NULL);

-- +goose StatementBegin

-- a comment before it
CREATE FUNCTION note_email() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  -- a comment in it;

  INSERT INTO audit (email) VALUES (NEW.email);
  RETURN NEW;
END;
$body$;
-- +goose StatementEnd

CREATE TRIGGER users_audit AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note_email();
INSERT INTO users (email) VALUES ('c@example.org');

-- +goose Down
-- +goose StatementBegin
DROP TRIGGER users_audit ON users;
DROP FUNCTION note_email;
DROP TABLE audit;
-- +goose StatementEnd
