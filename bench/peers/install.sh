#!/usr/bin/env bash
# Builds the tools that the benchmark compares with and the tests do not have: golang-migrate with its sources of buckets, and
# its S3 source with an endpoint. goose, dbmate, Atlas and Flyway are parts, as the servers are: `npm run parts` comes first.
#
# As `npm run parts` does, into the same cache and with links in `.parts/peers`. A cold build takes minutes. Needs Go 1.25 or
# newer.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v go >/dev/null || { echo 'peers: need Go 1.25 or newer (https://go.dev/dl)' >&2; exit 1; }
source "$here/../../test/parts/cache.sh"
source "$here/../../test/parts/go-peers.sh"

# With what its users of PostgreSQL and buckets build in.
golang_migrate_peer peers/migrate 'postgres mongodb aws_s3 google_cloud_storage file'
go_folder peers/golang-migrate-s3 "$here/golang-migrate-s3"
