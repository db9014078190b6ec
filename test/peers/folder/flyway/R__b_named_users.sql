CREATE OR REPLACE VIEW named_users AS SELECT id, name FROM a_users WHERE name <> '${who}';
