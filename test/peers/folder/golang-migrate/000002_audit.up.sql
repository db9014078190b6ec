-- Semicolons inside a body: golang-migrate sends the file in one piece.
CREATE TABLE audit (id int GENERATED ALWAYS AS IDENTITY, email text NOT NULL);

CREATE FUNCTION note_email() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
  INSERT INTO audit (email) VALUES (NEW.email);
  RETURN NEW;
END;
$body$;

CREATE TRIGGER users_audit AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note_email();
