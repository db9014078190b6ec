-- written on another system: CR LF, and letters beyond ASCII
CREATE VIEW "straße" AS SELECT email AS "ключ" FROM users;
COMMENT ON VIEW "straße" IS '☃ ''and'' 😀';
INSERT INTO users (email) VALUES ('zoë@example.org');
