-- atlas:delimiter \n\n\n

CREATE FUNCTION total(bigint) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN


  RETURN (SELECT count(*) FROM orders WHERE user_id = $1);
END;
$$


CREATE RULE no_delete AS ON DELETE TO users DO INSTEAD (SELECT 1; SELECT 2)


INSERT INTO users VALUES (2, 'a
b')
