# What every installing script here shares: `source` it. It takes the cache's lock for as long as the script runs.
#
#   LOCKKEEPER_PARTS   where the links go            (default: .parts in the checkout)
#   XDG_CACHE_HOME     the cache's parent folder     (default: ~/.cache)

parts=$(realpath -m "${LOCKKEEPER_PARTS:-$(dirname "${BASH_SOURCE[0]}")/../../.parts}")
cache=$(realpath -m "${XDG_CACHE_HOME:-$HOME/.cache}/lockkeeper-parts")
mkdir -p "$parts/bin" "$parts/peers" "$cache"

# Two runs at once (two checkouts, an impatient person) must not build into the same folder.
exec 9>"$cache/.lock"
flock 9

say() { printf 'parts: %s\n' "$*"; }

# link TARGET NAME: points .parts/NAME at its folder or file in the cache.
link() { ln -sfn "$1" "$parts/$2"; }

# build FOLDER COMMAND…: runs the command once for ever; a folder that an interrupted run left half built is made anew.
build() {
  local folder=$1
  shift
  [ -e "$folder/.complete" ] && return 0
  rm -rf "$folder"
  mkdir -p "$folder"
  local began=$SECONDS
  "$@" >"$folder.log" 2>&1 || { tail -n 20 "$folder.log" >&2; return 1; }
  touch "$folder/.complete"
  rm -f "$folder.log"
  say "built $(basename "$folder") in $((SECONDS - began)) s"
}

# Of the files' content alone: another checkout has the same parts.
hash_of() { cat "$@" | sha256sum | cut -c1-16; }

# go_program LINK FOLDER TAGS MODULE: installs a published program, named as the last part of its module's path.
# Without what only a debugger reads: linking takes a third of the time.
go_program() {
  local module=${4%@*}
  build "$2" env GOBIN="$2" go install -trimpath -ldflags='-s -w' -tags "$3" "$4" && link "$2/${module##*/}" "$1"
}

# go_folder LINK FOLDER: builds a program of ours, named as its folder.
go_folder() {
  local name built
  name=$(basename "$2")
  built=$cache/$name-$(hash_of "$2"/*)
  build "$built" go -C "$2" build -o "$built/$name" . && link "$built/$name" "$1"
}
