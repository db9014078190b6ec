DROP TRIGGER users_audit ON users;
DROP FUNCTION note_email();
DROP TABLE audit
