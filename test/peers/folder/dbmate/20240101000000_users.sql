-- The orders service: `dbmate new NAME` makes the next file.

-- migrate:up
CREATE TABLE users (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email text NOT NULL -- where to write to
);
INSERT INTO users (email) VALUES ('a@example.org'), ('b;@example.org');

-- migrate:down
DROP TABLE users;
