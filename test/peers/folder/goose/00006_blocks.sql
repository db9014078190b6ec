--+goose   UP
-- +goose StatementBegin
CREATE TABLE first (id int)
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TABLE second (id int)
-- +goose StatementEnd
INSERT INTO second VALUES
(1),
(2)
;

-- +goose down
DROP TABLE second;
-- +goose statementbegin
DROP TABLE first
-- +goose statementend
