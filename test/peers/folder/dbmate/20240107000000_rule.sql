-- migrate:up
/* as
  -- migrate:down said; */
CREATE RULE users_stay AS ON DELETE TO users DO INSTEAD (
  INSERT INTO audit (email) VALUES ('-- migrate:up');
  INSERT INTO audit (email) VALUES (OLD.email);
);
DELETE FROM users WHERE email = 'a@example.org';

-- migrate:down
DROP RULE users_stay ON users;
