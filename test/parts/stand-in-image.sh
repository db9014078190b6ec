#!/usr/bin/env bash
# Makes a stand-in for docker.io/library/node:24-bookworm-slim where no image can be pulled: Debian's minimal system, the
# project's own Node 24 and the machine's npm. It proves our Dockerfile, not what the true base image contains.
#
#   stand-in-image.sh STORE NODE      STORE: folder of images (buildah --root), NODE: a Node 24 binary; as root
set -euo pipefail
store=$1
node=$2
image=docker.io/library/node:24-bookworm-slim
buildah() { command buildah --root "$store/root" --runroot "$store/run" "$@"; }

root=$(mktemp -d)
container=
finish() {
  [ -z "$container" ] || buildah rm "$container" >/dev/null 2>&1 || true
  rm -rf "$root"
}
trap finish EXIT

# Debian's own images say so as well: nothing here has to survive a power cut, and without it most of the time is fsync.
install -D -m 644 /dev/stdin "$root/etc/dpkg/dpkg.cfg.d/unsafe-io" <<<force-unsafe-io

mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | head -n 1)
PATH=$PATH:/usr/sbin:/sbin debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "${mirror:-}"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*

# In the image, npm is where Node's own distribution has it.
install -D -m 755 "$node" "$root/usr/local/bin/node"
mkdir -p "$root/usr/local/lib/node_modules"
cp -a "$(realpath "$(dirname "$(realpath "$(PATH=${PATH#*node_modules/.bin:} command -v npm)")")/..")" "$root/usr/local/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/usr/local/bin/npm"
chroot "$root" /usr/sbin/groupadd --gid 1000 node
chroot "$root" /usr/sbin/useradd --uid 1000 --gid node --create-home node

container=$(buildah from scratch)
cp -a "$root/." "$(buildah mount "$container")/"
buildah config --cmd node --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
buildah commit --quiet "$container" "$image"
