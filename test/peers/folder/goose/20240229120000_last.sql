-- +goose Up
INSERT INTO users (email, note) VALUES ('d@example.org', '# A note

-- not a comment
  -- nor this

ärger 🧰');

-- +goose Down
DELETE FROM users WHERE email = 'd@example.org';
