-- atlas:txmode none
-- atlas:nolint

CREATE INDEX CONCURRENTLY "orders_user_id" ON "orders" ("user_id");
INSERT INTO "orders" ("user_id") VALUES (1);
