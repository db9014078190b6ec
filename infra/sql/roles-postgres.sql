-- The two database roles of lockkeeper, for one database. Run it once, as an administrator, before the first migration:
--
--   psql "$ADMIN_URL" -v ON_ERROR_STOP=1 -v database=orders -v owner=orders_owner -v app=orders_app -f roles-postgres.sql
--
--   database   the database; be connected to it
--   owner      role that owns the tables; made here, without a login, where it is not there
--   app        the application's own role, which must be there: it keeps its rights on rows and loses none
--
-- Then give the two a way to log in: a password (ALTER ROLE … PASSWORD), or on RDS GRANT rds_iam, on Cloud SQL an IAM user.
-- Running it again changes nothing.

-- Who changes the database. Whatever it makes belongs to the owner, so that no application breaks when the runner's role
-- is replaced. A setting of the role, because a pooler passes no start-up parameters on.
SELECT format('CREATE ROLE %I NOLOGIN', :'owner') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
SELECT 'CREATE ROLE lockkeeper_runner LOGIN NOINHERIT' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lockkeeper_runner') \gexec
GRANT :"owner" TO lockkeeper_runner;
ALTER ROLE lockkeeper_runner IN DATABASE :"database" SET role = :'owner';
GRANT CONNECT ON DATABASE :"database" TO lockkeeper_runner;
GRANT USAGE, CREATE ON SCHEMA public TO :"owner";
-- Nobody else makes tables; this is the default since PostgreSQL 15.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;

-- What lockkeeper remembers: who was asked for what, and what was done. It belongs to the owner as well.
CREATE SCHEMA IF NOT EXISTS lockkeeper;
SELECT format('ALTER SCHEMA lockkeeper OWNER TO %I', :'owner') \gexec
REVOKE ALL ON SCHEMA lockkeeper FROM PUBLIC;

-- Who only looks: wait, status, history, the gate of a server. It sees lockkeeper's own tables, and nothing of the application's.
SELECT 'CREATE ROLE lockkeeper_reader LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'lockkeeper_reader') \gexec
GRANT CONNECT ON DATABASE :"database" TO lockkeeper_reader;
GRANT USAGE ON SCHEMA lockkeeper TO lockkeeper_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA lockkeeper TO lockkeeper_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA lockkeeper GRANT SELECT ON TABLES TO lockkeeper_reader;

-- The application reads and writes rows in tables that migrations make, and changes no table.
GRANT USAGE ON SCHEMA public TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"app";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO :"app";
