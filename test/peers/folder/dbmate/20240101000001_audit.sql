-- migrate:up
CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY, email text NOT NULL);

CREATE FUNCTION note_email() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  -- a comment in it;
  INSERT INTO audit (email) VALUES (NEW.email);
  RETURN NEW;
END;
$body$;

CREATE TRIGGER users_audit AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note_email();
INSERT INTO users (email) VALUES ('c@example.org');

-- migrate:down
DROP TRIGGER users_audit ON users;
DROP FUNCTION note_email;
DROP TABLE audit;
