ALTER TABLE users ADD COLUMN seen timestamptz;
UPDATE users SET name = 'a;b' /* ; /* nested ; */ */;
