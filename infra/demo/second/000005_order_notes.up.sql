ALTER TABLE orders ADD COLUMN note text;
COMMENT ON COLUMN orders.note IS 'what the customer asked for';
