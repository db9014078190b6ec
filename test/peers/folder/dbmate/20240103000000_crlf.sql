-- migrate:up
CREATE FUNCTION greeting(who text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT 'hello
' || who
$$;

-- migrate:down transaction:true
DROP FUNCTION greeting;
