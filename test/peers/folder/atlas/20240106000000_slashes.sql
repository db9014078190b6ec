-- atlas:delimiter //
INSERT INTO users VALUES (3, 'https:;x') //
-- a comment; with // in it
UPDATE users SET email = '//' || email WHERE id = 3 //
