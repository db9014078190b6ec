BEGIN;

CREATE TYPE order_state AS ENUM ('open', 'paid');
CREATE TABLE orders (
  id int PRIMARY KEY,
  user_id bigint NOT NULL REFERENCES users,
  state order_state NOT NULL DEFAULT 'open'
);
INSERT INTO orders SELECT id, id FROM users;

COMMIT;
