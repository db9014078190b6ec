-- atlas:checkpoint v1

CREATE TABLE "users" ("id" bigint NOT NULL, "email" text NOT NULL, PRIMARY KEY ("id"));
CREATE UNIQUE INDEX "users_email" ON "users" ("email");
CREATE TABLE "orders" ("id" bigint NOT NULL GENERATED ALWAYS AS IDENTITY, "user_id" bigint NOT NULL, PRIMARY KEY ("id"), CONSTRAINT "orders_user" FOREIGN KEY ("user_id") REFERENCES "users" ("id"));
INSERT INTO "users" VALUES (1, 'checkpoint;1@example.com');
