CREATE OR REPLACE VIEW a_users AS SELECT id, name FROM users;
