-- Its place is taken by B1__users.sql where the database is empty.
CREATE TABLE users (
  id bigint PRIMARY KEY,
  email text NOT NULL
);
