-- migrate:up
INSERT INTO users (email, note) VALUES ('d@example.org', 'ärger
🧰')
-- migrate:down
DELETE FROM users WHERE email = 'd@example.org'
