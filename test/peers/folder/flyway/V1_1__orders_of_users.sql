-- for ${who}, by ${flyway:filename}
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id bigint NOT NULL REFERENCES users,
  made_by text NOT NULL DEFAULT '${WHO} of ${flyway:filename}',
  price text NOT NULL DEFAULT '5 $$'
);
CREATE FUNCTION total(bigint) RETURNS bigint LANGUAGE plpgsql AS $body$
BEGIN
  -- ${who}; and $${who} stays
  RETURN (SELECT count(*) FROM orders WHERE user_id = $1);
END;
$body$;
INSERT INTO orders (user_id) VALUES (1);
