-- atlas:txmode file

UPDATE users SET name = 'n' || id;
