#!/usr/bin/env bash
# Builds the tools that the benchmark compares with: golang-migrate, goose, and golang-migrate's S3 source with an endpoint.
#
# What it builds lies in a cache outside the checkout, one folder a tool, named by its version (or by the hash of its own
# files), so it is built once; `.parts/peers` holds links into it. A cold build takes minutes. Needs Go 1.25 or newer.
#
#   LOCKKEEPER_PARTS   where the links go            (default: .parts in the checkout)
#   XDG_CACHE_HOME     the cache's parent folder     (default: ~/.cache)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
peers=$(realpath -m "${LOCKKEEPER_PARTS:-$here/../../.parts}/peers")
cache=$(realpath -m "${XDG_CACHE_HOME:-$HOME/.cache}/lockkeeper-parts/peers")
mkdir -p "$peers" "$cache"

command -v go >/dev/null || { echo 'peers: need Go 1.25 or newer (https://go.dev/dl)' >&2; exit 1; }

# Two runs at once must not build into the same folder.
exec 9>"$cache/.lock"
flock 9

# build NAME FOLDER COMMAND…: builds the program NAME into FOLDER, once, and links it.
build() {
  local name=$1 folder=$2 began=$SECONDS
  shift 2
  if [ ! -e "$folder/.complete" ]; then
    rm -rf "$folder"
    mkdir -p "$folder"
    "$@"
    touch "$folder/.complete"
    echo "peers: built $(basename "$folder") in $((SECONDS - began)) s"
  fi
  ln -sfn "$folder/$name" "$peers/$name"
}

# install FOLDER TAGS MODULE: `go install` of one program.
install() { GOBIN=$1 go install -tags "$2" "$3"; }

# golang-migrate with what its users of PostgreSQL and buckets build in; goose with PostgreSQL only.
goose=v3.29.0
build goose "$cache/goose-$goose" install "$cache/goose-$goose" \
  'no_mysql no_sqlite3 no_mssql no_clickhouse no_ydb no_vertica no_libsql' "github.com/pressly/goose/v3/cmd/goose@$goose"

bridge=$cache/golang-migrate-s3-$(cat "$here"/golang-migrate-s3/* | sha256sum | cut -c1-16)
build golang-migrate-s3 "$bridge" go -C "$here/golang-migrate-s3" build -o "$bridge/golang-migrate-s3" .

migrate=v4.20.1
build migrate "$cache/golang-migrate-$migrate" install "$cache/golang-migrate-$migrate" \
  'postgres mongodb aws_s3 google_cloud_storage file' "github.com/golang-migrate/migrate/v4/cmd/migrate@$migrate"

echo "peers: ready in $peers"
