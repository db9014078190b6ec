CREATE FUNCTION add(a int, b int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
  -- a semicolon; in a comment
  RETURN a + b;
END;
$$;

CREATE OR REPLACE FUNCTION nested() RETURNS text LANGUAGE plpgsql AS $body$
DECLARE t text;
BEGIN
  EXECUTE $$ SELECT 'x;y' $$ INTO t;
  RETURN t || $q$;$q$;
END $body$; COMMENT ON FUNCTION nested() IS 'it''s; nested';
