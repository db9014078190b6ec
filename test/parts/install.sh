#!/usr/bin/env bash
# Installs the real servers and tools that the tests use: `npm run parts`.
#
# What it builds lies in a cache outside the checkout, one folder a part, named by the part's version or by the hash of its
# lock file, so that a second run takes a second and a changed lock rebuilds only what it locks. The checkout's `.parts`
# holds links into it. Debian packages are installed only where they are absent and we are root.
#
#   LOCKKEEPER_PARTS   where the links go            (default: .parts in the checkout)
#   XDG_CACHE_HOME     the cache's parent folder     (default: ~/.cache)
#
# A part that could not be installed is told at the end with what to do; the others are installed all the same.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/cache.sh"
source "$here/go-peers.sh"

uv_version=0.13.8
versitygw=github.com/versity/versitygw/cmd/versitygw@v1.8.0
fake_gcs_server=github.com/fsouza/fake-gcs-server@v1.56.1
cosign=github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
actionlint=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
helm=helm.sh/helm/v3/cmd/helm@v3.22.0
wycheproof=github.com/c2sp/wycheproof@v0.0.0-20260902155932-3fa63dd0344a
flyway=10.20.1
docker_compose=1.29.2
maven_dependency_plugin=3.6.1

failures=$(mktemp)
trap 'rm -f "$failures"' EXIT
missing() { printf '%s\n' "$*" >>"$failures"; }

install_uv() { python3 -m venv "$1" && "$1/bin/pip" install --quiet "uv==$uv_version"; }

# Without pip inside: uv fills it, in a few seconds where pip takes half a minute.
install_locked() {
  python3 -m venv --without-pip "$1" && "$uv/bin/uv" pip install --quiet --system-certs --python "$1/bin/python" --requirement "$2"
}

python_parts() {
  if ! python3 -c 'import venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    missing 'localstack, ministack, secantusdb, sam, kubernetes-validate, telemetry, compose-schema: need python3 3.11 or newer with its venv module'
    return 0
  fi
  local python name lock folder
  python=$(python3 -c 'import sys; print("py%d%d" % sys.version_info[:2])')
  uv=$cache/uv-$uv_version-$python
  build "$uv" install_uv "$uv" || { missing 'localstack, ministack, secantusdb, sam, kubernetes-validate, telemetry, compose-schema: uv could not be installed'; return 0; }
  for name in ministack localstack secantusdb sam kubernetes-validate telemetry; do
    for lock in "$here/$name"-*.lock.txt; do
      folder=$cache/$name-$python-$(hash_of "$lock")
      if build "$folder" install_locked "$folder" "$lock"; then link "$folder" "$name"; else missing "$name: see above"; fi
    done
  done
  folder=$cache/docker-compose-$docker_compose
  if build "$folder" compose_schema "$folder"; then link "$folder/compose/config/compose_spec.json" compose-schema.json; else missing 'compose-schema: see above'; fi
}

# The last compose in Python carries the JSON schema of compose files; none of it runs.
compose_schema() { "$uv/bin/uv" pip install --quiet --system-certs --no-deps --target "$1" "docker-compose==$docker_compose"; }

go_parts() {
  # Where Go's own instructions put it.
  local PATH=$PATH:/usr/local/go/bin
  if ! command -v go >/dev/null; then
    missing 'versitygw, fake-gcs-server, goose, golang-migrate, atlas, cosign, actionlint, helm, wycheproof: need Go 1.25 or newer (https://go.dev/dl)'
    return 0
  fi
  go_program bin/versitygw "$cache/versitygw-${versitygw##*@}" '' "$versitygw" || missing 'versitygw: see above'
  go_program bin/fake-gcs-server "$cache/fake-gcs-server-${fake_gcs_server##*@}" '' "$fake_gcs_server" || missing 'fake-gcs-server: see above'
  goose_peer || missing 'goose: see above'
  golang_migrate_peer peers/golang-migrate 'postgres mongodb file' || missing 'golang-migrate: see above'
  go_folder peers/atlas "$here/atlas" || missing 'atlas: see above'
  go_program bin/cosign "$cache/cosign-${cosign##*@}" '' "$cosign" || missing 'cosign: see above'
  go_program bin/actionlint "$cache/actionlint-${actionlint##*@}" '' "$actionlint" || missing 'actionlint: see above'
  go_program bin/helm "$cache/helm-${helm##*@}" '' "$helm" || missing 'helm: see above'
  local folder=$cache/wycheproof-${wycheproof##*-}
  if build "$folder" wycheproof_vectors "$folder"; then link "$folder" wycheproof; else missing 'wycheproof: see above'; fi
}

# Of 30 MB of test vectors, the four files for what we verify.
wycheproof_vectors() {
  local module
  module=$(go mod download -json "$wycheproof" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') || return
  (cd "$module/testvectors_v1" && cp ed25519_test.json ecdsa_secp256r1_sha256_test.json ecdsa_secp256r1_sha256_p1363_test.json json_web_signature_test.json "$1")
}

# dbmate, node-pg-migrate, migrate-mongo and umzug: published packages, with a lock of their own.
npm_parts() {
  local folder
  folder=$cache/npm-$(hash_of "$here"/npm/*)
  if build "$folder" npm_packages "$folder"; then link "$folder" peers/npm; else missing 'dbmate, node-pg-migrate, migrate-mongo, umzug: see above'; fi
}

npm_packages() { cp "$here"/npm/* "$1" && npm --prefix "$1" ci --ignore-scripts --no-audit --no-fund --loglevel=error; }

# Lambda's own Node runtime: its installing scripts compile its client of the runtime's API.
lambda_parts() {
  if ! command -v g++ >/dev/null || ! command -v make >/dev/null || ! command -v cmake >/dev/null; then
    missing 'lambda-ric: needs g++, make and cmake'
    return 0
  fi
  local folder
  folder=$cache/lambda-ric-$(hash_of "$here"/lambda-ric/*)
  if build "$folder" lambda_runtime "$folder"; then link "$folder" lambda-ric; else missing 'lambda-ric: see above'; fi
}

lambda_runtime() { cp "$here"/lambda-ric/* "$1" && npm --prefix "$1" ci --no-audit --no-fund --loglevel=error; }

flyway_parts() {
  if ! command -v mvn >/dev/null || ! command -v java >/dev/null; then
    missing 'flyway: needs Maven and Java 17'
    return 0
  fi
  local folder=$cache/flyway-$flyway
  if build "$folder" flyway_tool "$folder"; then link "$folder" peers/flyway; else missing 'flyway: see above'; fi
}

# Of its 180 MB, a tenth is itself and PostgreSQL.
flyway_tool() {
  mvn -q -B "org.apache.maven.plugins:maven-dependency-plugin:$maven_dependency_plugin:copy" \
    "-Dartifact=org.flywaydb:flyway-commandline:$flyway:tar.gz" "-DoutputDirectory=$1" &&
    tar -xzf "$1/flyway-commandline-$flyway.tar.gz" -C "$1" --strip-components=1 --wildcards --exclude='*/drivers/[!p]*' &&
    rm "$1/flyway-commandline-$flyway.tar.gz"
}

# Google's emulator of Pub/Sub is a part of its Cloud SDK, and published nowhere else.
pubsub_parts() {
  local gcloud root jar=${PUBSUB_EMULATOR_JAR:-}
  gcloud=$(command -v gcloud) || true
  for root in ${gcloud:+"$(dirname "$(realpath "$gcloud")")/.."} /usr/lib/google-cloud-sdk "$HOME/google-cloud-sdk"; do
    [ -n "$jar" ] || jar=$(ls "$root"/platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar 2>/dev/null | head -n 1) || true
  done
  if [ -f "$jar" ]; then link "$(realpath "$jar")" pubsub-emulator.jar; else missing 'pubsub-emulator: gcloud components install pubsub-emulator, or name its jar with PUBSUB_EMULATOR_JAR'; fi
}

# tool:package for each Debian package that carries a part.
debian='pgbouncer:pgbouncer psql:postgresql-client-15 pg_dump:postgresql-client-15
  mvn:maven java:default-jre-headless buildah:buildah podman:podman runc:runc conmon:conmon debootstrap:debootstrap ip:iproute2
  shellcheck:shellcheck jq:jq curl:curl g++:g++ make:make cmake:cmake xz:xz-utils'

debian_parts() {
  # Administrators' folders are not on everybody's PATH.
  local PATH=$PATH:/usr/sbin:/sbin
  local pair wanted=()
  for pair in $debian; do
    command -v "${pair%%:*}" >/dev/null || [ -x "/usr/lib/postgresql/15/bin/${pair%%:*}" ] || wanted+=("${pair##*:}")
  done
  [ ${#wanted[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    missing "${wanted[*]}: install these Debian packages as root"
    return 0
  fi
  local began=$SECONDS log=$cache/debian.log
  export DEBIAN_FRONTEND=noninteractive
  if { apt-get -o DPkg::Lock::Timeout=300 -qq update &&
    apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends "${wanted[@]}"; } >"$log" 2>&1; then
    say "installed ${wanted[*]} in $((SECONDS - began)) s"
  else
    tail -n 20 "$log" >&2
    missing "${wanted[*]}: apt-get failed, see above"
  fi
}

# The image that our Dockerfile starts from, in a store of its own beside the other parts.
image_parts() {
  local PATH=$PATH:/usr/sbin:/sbin
  local node=$here/../../node_modules/node/bin/node folder
  if [ "$(id -u)" != 0 ] || ! command -v buildah >/dev/null || [ ! -x "$node" ]; then
    missing 'base-image: needs root, buildah, and npm ci before'
    return 0
  fi
  folder=$cache/images-$("$node" --version)-$(hash_of "$here/stand-in-image.sh")
  if build "$folder" base_image "$folder" "$node"; then link "$folder" images; else missing 'base-image: see above'; fi
}

base_image() {
  timeout 60 buildah --root "$1/root" --runroot "$1/run" pull --quiet docker.io/library/node:24-bookworm-slim ||
    "$here/stand-in-image.sh" "$1" "$2"
}

# The compiler keeps both cores busy for minutes; the others mostly wait for the network, so they run beside it.
go_parts 9>&- &
pubsub_parts
{ debian_parts && image_parts && flyway_parts && lambda_parts; } 9>&- &
{ python_parts && npm_parts; } 9>&- &
wait

if [ -s "$failures" ]; then
  while read -r line; do say "not installed: $line"; done <"$failures" >&2
  exit 1
fi
say "ready in $parts ($SECONDS s)"
