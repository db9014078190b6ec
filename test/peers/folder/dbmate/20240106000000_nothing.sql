
-- migrate:up

-- migrate:down
