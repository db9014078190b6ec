-- The orders service: `goose create NAME sql` makes the next file.

-- +goose Up
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- where to write to
    email text NOT NULL, -- and nowhere else;
    name text
);
COMMENT ON TABLE users IS 'people, and
those who act for them';
INSERT INTO users (email) VALUES ('a@example.org'); INSERT INTO users (email) VALUES ('b@example.org');

-- +goose Down
DROP TABLE users;
