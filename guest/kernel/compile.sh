#!/usr/bin/env bash
# Compiles the guest's kernel: compile.sh ARCHIVE WORK OUT
#
#   ARCHIVE  Debian's linux-source-6.12.tar.xz
#   WORK     an empty folder for the source and what is compiled (1.2 GB), or one that an earlier run of this left
#   OUT      an empty folder for vmlinux (for Firecracker, and for QEMU's PVH entry), bzImage, and the configuration used
#
# The same archive, compiler and fragments give the same bytes, wherever and whenever: that is why the time, the user, the
# host and the path of the build are fixed here. Called by tools/build_kernel.sh; this file is part of the cache's key.
set -euo pipefail
archive=$1 work=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
export LC_ALL=C TZ=UTC
export KBUILD_BUILD_TIMESTAMP="1970-01-01 00:00:00 UTC" KBUILD_BUILD_USER=cuboid KBUILD_BUILD_HOST=cuboid KBUILD_BUILD_VERSION=1
unset KCFLAGS KAFLAGS KCPPFLAGS MAKEFLAGS CROSS_COMPILE ARCH

# The biggest drivers, none of which is on: half of the archive. Their Kconfig and Makefiles are read and stay.
unused=(--exclude='*/drivers/gpu/drm/*.[ch]' --exclude='*/drivers/net/ethernet/*.[ch]' --exclude='*/drivers/net/wireless/*.[ch]'
  --exclude='*/sound/*/*.[ch]' --exclude='*/tools/perf/*' --exclude='*/tools/testing/*')
cd "$work"
if [ ! -e Makefile ]; then
  tar -xf "$archive" --strip-components=1 "${unused[@]}"
  for patch in "$here"/patches/*.patch; do patch -s -p1 <"$patch"; done
  # NFS and RPC have 400 tracepoints and 300 enumerations in them, whose names the kernel replaces in every format at boot:
  # half of the time of an emulated boot, and 1 MiB of each guest's memory. The tracepoints of ext4 and its journal go with them.
  for folder in fs/nfs fs/lockd net/sunrpc net/handshake fs/ext4 fs/jbd2; do echo 'subdir-ccflags-y += -DNOTRACE' >>"$folder/Makefile"; done
fi
cat "$here"/config.d/*.config >wanted.config
make -s KCONFIG_ALLCONFIG="$PWD/wanted.config" allnoconfig

# What Kconfig did not take, for a dependency that is missing or a name that is gone, must not go unnoticed.
lost=$(grep '^CONFIG_' wanted.config | grep -vxFf .config || true)
for option in $(sed -n 's/^# \(CONFIG_[A-Z0-9_]*\) is not set$/\1/p' wanted.config); do
  grep -q "^$option=" .config && lost+=" $option (is on)"
done
[ -z "$lost" ] || { echo "compile: Kconfig did not take these options: $lost" >&2; exit 1; }

# PAHOLE_FLAGS: with more than one thread its output is in another order each time.
make -s -j"${JOBS:-$(nproc)}" KCFLAGS="-ffile-prefix-map=$PWD/=" ${PAHOLE_FLAGS:+PAHOLE_FLAGS="$PAHOLE_FLAGS"} vmlinux bzImage
objcopy --strip-all vmlinux "$out/vmlinux"
cp arch/x86/boot/bzImage .config "$out/"
mv "$out/.config" "$out/config"
cp include/config/kernel.release "$out/release"
