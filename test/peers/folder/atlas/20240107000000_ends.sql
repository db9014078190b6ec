-- atlas:delimiter -- end
INSERT INTO users VALUES (4, 'd')
-- end
INSERT INTO users VALUES (5, 'e')
-- end
