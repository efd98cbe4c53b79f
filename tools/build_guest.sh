#!/usr/bin/env bash
# Builds into build/guest what VMs need: the launcher of their VMM (launcher.rs), what gives their memory back (memory.c),
# the guest agent (static) and its initramfs files: for the general kernel with its modules (initramfs,
# initramfs-small), for the minimal one the agent alone (initramfs-minimal). Quick when nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."

log=build/guest/build.log
mkdir -p build/guest
command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
shown=""
[ -t 2 ] || shown=-q
if [ ! -x build/guest/cuboid-agent ]; then echo "build_guest: compiling the agent (a few minutes the first time)" >&2; fi
(cd guest/agent && cargo build --release --locked $shown) || { echo "build_guest: cargo could not build the agent" >&2; exit 1; }
built=build/cargo/x86_64-unknown-linux-gnu/release/cuboid-agent
cmp -s "$built" build/guest/cuboid-agent || install -m 755 "$built" build/guest/cuboid-agent

launcher=build/guest/cuboid-launcher source=src/cuboid/vmm/qemu/launcher.rs
if [ ! -e "$launcher" ] || [ "$source" -nt "$launcher" ]; then
  rustc --edition 2024 -O -C target-feature=+crt-static -C panic=abort -C strip=symbols -o "$launcher.new" "$source"
  mv "$launcher.new" "$launcher"
fi
library=build/guest/cuboid-memory.so source=src/cuboid/vmm/qemu/memory.c
if [ ! -e "$library" ] || [ "$source" -nt "$library" ]; then
  if command -v gcc >/dev/null; then gcc -O2 -Wall -shared -fPIC -s -o "$library.new" "$source" && mv "$library.new" "$library"
  else echo "build_guest: no gcc: restored VMs will not give memory back that their guests free" >&2; fi
fi

kernel=$(compgen -G 'build/kernel/vmlinuz-*' | sort | head -n 1) || { echo "build_guest: no guest kernel in build/kernel; tools/setup.sh fetches it" >&2; exit 1; }
make_initramfs() { .venv/bin/python -m cuboid.guest.initramfs --agent build/guest/cuboid-agent "$@" 2>"$log" || { cat "$log" >&2; exit 1; }; }
make_initramfs -o build/guest/initramfs-minimal
for kind in "" -small; do
  make_initramfs --kernel "$kernel" --modules build/kernel/modules ${kind:+--small} -o "build/guest/initramfs$kind"
done
