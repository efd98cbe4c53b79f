#!/usr/bin/env bash
# Installs what Cuboid needs on a Debian 12 or 13 machine. Idempotent: each step is skipped when its result is there.
#
#   tools/setup.sh                 what running Cuboid needs (`make run`)
#   tools/setup.sh --guest-kernel  the same and the minimal guest kernel, compiled if need be (`make guest-kernel`)
#   tools/setup.sh --dev           the same and what its tests, checks and images need (`make test`)
#   tools/setup.sh --bench         the same and the peers that `make bench` compares with
set -euo pipefail
cd "$(dirname "$0")/.."

profile=run
compile_kernel=""  # "": never wait for a compiler; cache: unless a kernel of this recipe is there; newest: of the newest source
case "${1:-}" in
  --guest-kernel) compile_kernel=newest ;;
  --dev) profile=dev compile_kernel=cache ;;
  --bench) profile=bench compile_kernel=cache ;;
  "") ;;
  *) echo "setup: unknown option $1 (one of --guest-kernel, --dev, --bench)" >&2; exit 2 ;;
esac

say() { printf '\033[2m[setup %3ds]\033[0m %s\n' "$SECONDS" "$*" >&2; }
die() { echo "setup: $*" >&2; exit 1; }

[ "$(uname -m)" = x86_64 ] || die "this machine is $(uname -m); Cuboid runs on x86_64 only so far"
[ "$(id -u)" = 0 ] || die "root is needed (packages, network namespaces): run it with sudo"
# shellcheck source=/dev/null
. /etc/os-release
case "${VERSION_CODENAME:-}" in
  bookworm) backports=bookworm-backports; rust=(cargo-web rustc-web); rust_dev=(rustfmt-web) ;;
  trixie) backports=""; rust=(cargo rustc); rust_dev=(rustfmt rust-clippy) ;;
  *) die "Debian 12 (bookworm) or 13 (trixie) is needed; this is ${PRETTY_NAME:-unknown}" ;;
esac

# --- Debian packages -------------------------------------------------------------------------------------------------
# From backports on Debian 12: QEMU 10 (7.2 lacks what templates need).
newer=(qemu-system-x86)
packages=(ca-certificates e2fsprogs iproute2 iptables nftables containernetworking-plugins kmod
  python3-venv gcc libc6-dev make zstd docker-registry mmdebstrap)
[ "$profile" = run ] || packages+=(git cpio openssl erofs-utils nfs-ganesha nfs-ganesha-vfs)
[ "$profile" = bench ] && packages+=(podman runc)
# A Rust toolchain of the user's own is used where there is one, else Debian's. The agent's edition needs 1.85.
PATH="$HOME/.cargo/bin:$PATH"
rust_ready() { (cd / && cargo --version && rustc --version) 2>/dev/null | awk '{split($2, v, "."); if (v[1] > 1 || v[2] >= 85) n++} END {exit n != 2}'; }
if ! rust_ready; then
  packages+=("${rust[@]}")
  [ "$profile" = run ] || packages+=("${rust_dev[@]}")
fi

installed() { dpkg-query -W -f='${db:Status-Status}\n' "$1" 2>/dev/null | grep -qx installed; }
upstream_version() { dpkg-query -W -f='${Version}' "$1" 2>/dev/null | sed 's/^[0-9]*://'; }

add_backports() {
  local file=/etc/apt/sources.list.d/cuboid-backports.sources uri
  [ -e "$file" ] && return
  apt-cache policy 2>/dev/null | grep -q "n=$backports" && return
  uri=$(grep -rhoP '^(URIs:\s*|deb\s+(\[[^]]*\]\s+)?)\Khttps?://\S+/debian/?(?=\s|$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 || true)
  [ -n "$uri" ] || die "no Debian archive in the apt sources; add one that has $backports"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' \
    "$uri" "$backports" >"$file"
}

read_lists() {
  [ -z "${lists_read:-}" ] || return 0
  [ -z "$backports" ] || add_backports
  say "reading the package lists"
  apt_get update
  lists_read=1
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive timeout 900 apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 \
    -o Acquire::Retries=3 "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "apt-get $1 failed; the whole log is $log"; }
}

mkdir -p build
log=$PWD/build/setup.log
: >"$log"
missing=()
for name in "${packages[@]}"; do installed "$name" || missing+=("$name"); done
missing_newer=()
for name in "${newer[@]}"; do installed "$name" || missing_newer+=("$name"); done
if installed qemu-system-x86 && dpkg --compare-versions "$(upstream_version qemu-system-x86)" lt 8.2; then missing_newer+=(qemu-system-x86); fi
kernel_ready() { compgen -G 'build/kernel/vmlinuz-*' >/dev/null; }

if ((${#missing[@]} + ${#missing_newer[@]})) || ! kernel_ready; then read_lists; fi
if ((${#missing[@]})); then
  say "installing ${missing[*]}"
  # A server package must not start its server here: the demo and the tests start their own, on loopback.
  policy=/usr/sbin/policy-rc.d
  made_policy=""
  if [ ! -e "$policy" ]; then printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; made_policy=1; fi
  apt_get install --no-install-recommends "${missing[@]}"
  [ -z "$made_policy" ] || rm -f "$policy"
fi
if ((${#missing_newer[@]})); then
  say "installing ${missing_newer[*]}${backports:+ from $backports}"
  apt_get install --no-install-recommends ${backports:+-t "$backports"} "${missing_newer[@]}"
fi

# --- an old kubectl for the tests: Debian's 1.20, unpacked, not installed --------------------------------------------
if [ "$profile" != run ] && [ ! -x build/old-kubectl/kubectl ]; then
  read_lists
  say "fetching Debian's kubernetes-client"
  rm -rf build/old-kubectl && mkdir -p build/old-kubectl/deb
  (cd build/old-kubectl/deb && timeout 300 apt-get -q download kubernetes-client >>"$log" 2>&1) || die "could not download kubernetes-client; see $log"
  dpkg-deb -x build/old-kubectl/deb/*.deb build/old-kubectl/root
  mv build/old-kubectl/root/usr/bin/kubectl build/old-kubectl/kubectl
  rm -rf build/old-kubectl/deb build/old-kubectl/root
fi

# --- guest kernel: Debian's cloud kernel, unpacked, not installed ----------------------------------------------------
if ! kernel_ready; then
  package=$(apt-cache ${backports:+-t "$backports"} depends linux-image-cloud-amd64 2>/dev/null |
    grep -oP 'Depends: \Klinux-image-6\.12\S*-cloud-amd64' | head -n 1 || true)
  [ -n "$package" ] || package=$(apt-cache pkgnames linux-image-6.12 | grep -P '^linux-image-6\.12\.[^-]*(\+deb1[23])?(-\d+)?-cloud-amd64$' | sort -V | tail -n 1 || true)
  [ -n "$package" ] || die "no cloud kernel 6.12 in the package lists; is ${backports:-trixie} reachable?"
  say "fetching the guest kernel $package"
  rm -rf build/kernel.new && mkdir -p build/kernel.new/deb
  (cd build/kernel.new/deb && timeout 600 apt-get -q download "$package" >>"$log" 2>&1) || die "could not download $package; see $log"
  dpkg-deb -x build/kernel.new/deb/*.deb build/kernel.new/root
  mv build/kernel.new/root/boot/vmlinuz-* build/kernel.new/
  modules=build/kernel.new/root/lib/modules
  [ -d "$modules" ] || modules=build/kernel.new/root/usr/lib/modules
  mv "$modules" build/kernel.new/modules
  rm -rf build/kernel.new/deb build/kernel.new/root
  mkdir build/kernel.new/lib && ln -s ../modules build/kernel.new/lib/modules
  depmod -b "$PWD/build/kernel.new" "$(basename build/kernel.new/modules/*)"
  rm -rf build/kernel && mv build/kernel.new build/kernel
fi

# --- guest kernel: the minimal one, from the cache, or compiled ------------------------------------------------------
# Debian's kernel above stays as the general one: pods can ask for it, and it boots them where this one is missing.
compile_guest_kernel() {
  local needed=(flex bison bc libelf-dev gcc libc6-dev make patch xz-utils zstd) name absent=()
  read_lists
  for name in "${needed[@]}"; do installed "$name" || absent+=("$name"); done
  ((${#absent[@]} == 0)) || { say "installing ${absent[*]}"; apt_get install --no-install-recommends "${absent[@]}"; }
  say "installing the newest linux-source-6.12${backports:+ from $backports} (152 MB)"
  apt_get install --no-install-recommends ${backports:+-t "$backports"} linux-source-6.12
  tools/build_kernel.sh
}

if [ "$compile_kernel" = newest ]; then
  compile_guest_kernel
elif ! tools/build_kernel.sh --cached 2>>"$log"; then
  if [ "$compile_kernel" = cache ]; then
    compile_guest_kernel
  elif [ -e build/guest-kernel/vmlinux ]; then
    say "the minimal guest kernel in build/guest-kernel is of another recipe and stays in use; make guest-kernel compiles the new one"
  else
    say "pods boot Debian's kernel; make guest-kernel compiles the minimal one (about 8 minutes, once), which starts in half the time"
  fi
fi

# --- Python: a virtual environment with pinned versions --------------------------------------------------------------
python=""
# The one that is there already comes first: PATH is another one under sudo, and that must change nothing.
for candidate in .venv/bin/python python3.13 python3.12 python3.11 python3; do
  if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$candidate; break; fi
done
[ -n "$python" ] || die "Python 3.11 or newer with venv is needed: apt-get install python3-venv"
extras=""
[ "$profile" = run ] || extras="[dev]"
[ "$profile" = bench ] && extras="[dev,bench]"
base=$("$python" -V; sha256sum pyproject.toml tools/constraints.txt)
wanted="$base $extras"
found=$(cat .venv/cuboid.stamp 2>/dev/null || true)
enough=no # what is there may be more than what is wanted
for more in "" "[dev]" "[dev,bench]"; do
  [ "$more" = "$extras" ] && enough=maybe
  [ $enough = maybe ] && [ "$found" = "$base $more" ] && enough=yes
done
if [ $enough != yes ]; then
  say "installing Python packages into .venv (about a minute the first time)"
  [ "$python" = .venv/bin/python ] || "$python" -m venv --clear .venv
  timeout 900 .venv/bin/python -m pip install -q --disable-pip-version-check --retries 5 -c tools/constraints.txt "setuptools>=77" -e ".$extras" >>"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; die "pip failed; the whole log is $log"; }
  echo "$wanted" >.venv/cuboid.stamp
fi

# --- guest agent and initramfs ---------------------------------------------------------------------------------------
rust_ready || die "Rust 1.85 or newer is needed for the guest agent; found: $(cargo --version 2>&1 | head -n 1)"
tools/build_guest.sh

# --- the command -----------------------------------------------------------------------------------------------------
if [ "$(readlink -f /usr/local/bin/cuboid 2>/dev/null)" != "$PWD/.venv/bin/cuboid" ]; then
  ln -sfn "$PWD/.venv/bin/cuboid" /usr/local/bin/cuboid
fi
