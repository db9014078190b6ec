UPDATE users SET name = NULL;
ALTER TABLE users DROP COLUMN seen;
