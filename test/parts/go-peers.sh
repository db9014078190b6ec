# The tools in Go that the tests and the benchmark both run, for whom has sourced cache.sh.

goose=v3.29.0
migrate=v4.20.1

# With PostgreSQL only.
goose_peer() {
  go_program peers/goose "$cache/goose-$goose" 'no_mysql no_sqlite3 no_mssql no_clickhouse no_ydb no_vertica no_libsql' \
    "github.com/pressly/goose/v3/cmd/goose@$goose"
}

# golang_migrate_peer LINK TAGS: with what the tags say of databases and sources.
golang_migrate_peer() {
  go_program "$1" "$cache/golang-migrate-$migrate-${2// /-}" "$2" "github.com/golang-migrate/migrate/v4/cmd/migrate@$migrate"
}
