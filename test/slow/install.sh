#!/usr/bin/env bash
# Installs what only the slow lane needs: a real API server of Kubernetes and the etcd behind it. Five minutes, once.
# The first comes from its Go module, whose own build knows its parts only by their place in its repository; the other from Debian.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../parts/cache.sh"

kubernetes=1.34.1

kube_apiserver() {
  local staging module
  staging=v0.${kubernetes#1.}
  module=$(go mod download -json "k8s.io/kubernetes@v$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p') || return
  (
    cd "$1"
    printf '//go:build tools\n\npackage tools\n\nimport _ "k8s.io/kubernetes/cmd/kube-apiserver"\n' >tools.go
    printf 'module apiserver\n\ngo 1.24.0\n\nrequire k8s.io/kubernetes v%s\n' "$kubernetes" >go.mod
    grep -oE '^\s+k8s.io/[a-z-]+ => ./staging' "$module/go.mod" |
      awk -v version="$staging" '{print "replace " $1 " => " $1 " " version}' >>go.mod
    export GOFLAGS=-mod=mod
    go mod tidy &&
      go build -trimpath -o kube-apiserver -ldflags "-s -w
        -X k8s.io/component-base/version.gitVersion=v$kubernetes
        -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34" \
        k8s.io/kubernetes/cmd/kube-apiserver
  )
}

PATH=$PATH:/usr/local/go/bin
folder=$cache/kube-apiserver-$kubernetes
build "$folder" kube_apiserver "$folder" && link "$folder/kube-apiserver" bin/kube-apiserver
command -v etcd >/dev/null ||
  { apt-get -o DPkg::Lock::Timeout=300 -qq update && apt-get -o DPkg::Lock::Timeout=300 -qq install -y --no-install-recommends etcd-server; } >/dev/null
say "ready in $parts ($SECONDS s)"
