-- An index on a table in use: built without blocking writers, so outside a transaction.
CREATE INDEX CONCURRENTLY orders_by_customer ON orders (customer_id, placed_at DESC);
