DROP VIEW "straße";
DELETE FROM users WHERE email = 'zoë@example.org';
