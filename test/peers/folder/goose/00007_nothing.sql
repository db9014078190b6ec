-- +goose Up
-- This one was taken back before it was released.

-- +goose Down
