CREATE TABLE templates (body text);
INSERT INTO templates VALUES ('Dear ${name},');
