CREATE TABLE a (id int);
-- comment; one
CREATE TABLE b (
  id int
);
