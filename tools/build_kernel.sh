#!/usr/bin/env bash
# Makes the guest's own kernel available in build/guest-kernel: from the cache, else compiled (8 minutes on two cores).
#
#   tools/build_kernel.sh            from the cache, else compile; the newest source that is installed counts
#   tools/build_kernel.sh --cached   from the cache, of any source version, or end with 3; compiles nothing
#   tools/build_kernel.sh --again    compile from nothing and say whether the bytes are those of the cache
#
# The cache is outside of the tree ($CUBOID_KERNEL_CACHE, default /var/cache/cuboid/kernels); an entry is named after the hash
# of guest/kernel and the source's version, and appears whole or not at all. Each file is verified when it is taken from there.
set -euo pipefail
cd "$(dirname "$0")/.."

source=linux-source-6.12
cache=${CUBOID_KERNEL_CACHE:-/var/cache/cuboid/kernels}
target=${CUBOID_KERNEL_TARGET:-build/guest-kernel}
files=(vmlinux bzImage config release recipe)

say() { echo "build_kernel: $*" >&2; }
die() { say "$*"; exit 1; }

mode=${1:-}
case "$mode" in "" | --cached | --again) ;; *) say "unknown option $mode (one of --cached, --again)"; exit 2 ;; esac

recipe=$(cat guest/kernel/compile.sh guest/kernel/patches/*.patch guest/kernel/config.d/*.config | sha256sum | cut -c 1-24)
version=$(dpkg-query -W -f='${Version}' "$source" 2>/dev/null || true)

whole() { [ -e "$1/SHA256SUMS" ] && (cd "$1" && sha256sum --quiet --strict -c SHA256SUMS) >/dev/null 2>&1; }

# The entry of the installed source if there is one, else the newest of this recipe. Prints nothing if none is whole.
find_entry() {
  local entry candidates=("$cache/$recipe-$version")
  if [ "$mode" = --cached ] || [ -z "$version" ]; then
    readarray -t -O 1 candidates < <(ls -1dt "$cache/$recipe"-*/ 2>/dev/null)
  fi
  for entry in "${candidates[@]%/}"; do
    if whole "$entry"; then printf '%s' "$entry"; return; fi
    [ ! -d "$entry" ] || say "$entry is damaged and not used"
  done
}

publish() {
  cmp -s "$1/SHA256SUMS" "$target/SHA256SUMS" && whole "$target" && return
  mkdir -p "$(dirname "$target")"
  rm -rf "$target.new" && cp -r "$1" "$target.new"
  rm -rf "$target" && mv "$target.new" "$target"
  say "$target is $(cat "$target/release"), from $1"
}

compile() {
  local archive=/usr/src/$source.tar.xz work out status
  [ -n "$version" ] && [ -e "$archive" ] || die "$source is not installed; make guest-kernel installs what is needed"
  for tool in flex bison bc gcc make patch zstd xz; do command -v "$tool" >/dev/null || die "$tool is not installed; make guest-kernel installs what is needed"; done
  rm -rf "$cache"/.build.*  # what an interrupted build left; the lock says that none runs
  work=$(mktemp -d "$cache/.build.XXXXXX")
  # A second signal (from `timeout`, from an impatient hand) must not end the removal.
  # shellcheck disable=SC2064
  trap "trap '' HUP INT TERM; rm -rf '$work'" EXIT
  mkdir "$work/source" "$work/entry"
  say "compiling the guest's kernel from $source $version: about 8 minutes on two cores, the log is $cache/build.log"
  SECONDS=0 status=0
  guest/kernel/compile.sh "$archive" "$work/source" "$work/entry" >"$cache/build.log" 2>&1 9>&- || status=$?
  if ((status)); then tail -n 20 "$cache/build.log" >&2; die "the kernel could not be compiled (exit code $status); the whole log is $cache/build.log"; fi
  echo "$recipe $source $version" >"$work/entry/recipe"
  (cd "$work/entry" && sha256sum "${files[@]}" >SHA256SUMS)
  say "compiled in $((SECONDS / 60)) min $((SECONDS % 60)) s"
  chmod -R a+rX "$work/entry"
  if [ "$mode" = --again ] && whole "$cache/$recipe-$version"; then
    cmp "$work/entry/SHA256SUMS" "$cache/$recipe-$version/SHA256SUMS" >/dev/null || die "not reproducible: $(diff "$work/entry/SHA256SUMS" "$cache/$recipe-$version/SHA256SUMS" | tr '\n' ' ')"
    say "reproducible: the same bytes as in the cache"
  else
    rm -rf "${cache:?}/$recipe-$version" && mv "$work/entry" "$cache/$recipe-$version"
  fi
}

mkdir -p "$cache" && chmod 755 "$cache"
exec 9>"$cache/.lock"
flock -n 9 || { say "waiting for another build of the kernel"; flock 9; }

entry=""
[ "$mode" = --again ] || entry=$(find_entry)
if [ -z "$entry" ]; then
  if [ "$mode" = --cached ]; then say "the cache $cache has no kernel of this recipe; make guest-kernel compiles it"; exit 3; fi
  compile
  entry=$cache/$recipe-$version
fi
publish "$entry"
