"""Which kernel and initramfs a pod's machine has, and what they need themselves. Pure once made."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.types import Pod
from cuboid.lib.errors import UnsupportedError
from cuboid.node import spec
from cuboid.vmm.base import Boot


@dataclass(frozen=True)
class GuestBoot:
    """One kind of guest. `small` has few modules; for a kernel with everything built in it is the same."""

    kind: str
    whole: Boot
    small: Boot
    overhead_mib: int
    min_memory_mib: int


@dataclass(frozen=True)
class Boots:
    """`ordinary` is for pods that do not say; `general` is Debian's kernel, if it is there."""

    ordinary: GuestBoot
    general: GuestBoot | None = None

    def guest(self, pod: Pod) -> GuestBoot:
        """InvalidError for an annotation that names no kernel, UnsupportedError for one that is not on this host."""
        if not spec.kernel_choice(pod):
            return self.ordinary
        if self.general is None:
            raise UnsupportedError("the general-purpose kernel is not on this host", hint="make run fetches it")
        return self.general

    def of(self, pod: Pod) -> Boot:
        guest = self.guest(pod)
        boot = guest.whole if spec.needs_all_modules(pod) else guest.small
        added = spec.kernel_args(pod)
        return Boot(boot.kernel, boot.initramfs, f"{boot.cmdline} {added}".strip()) if added else boot


def cold_reason(pod: Pod) -> str:
    """Why this pod's machine has to boot, for its receipt; empty if it may be restored."""
    if spec.kernel_choice(pod):
        return "the pod has a kernel of its own choice, so its machine booted"
    if spec.kernel_args(pod):
        return "the pod has arguments for its kernel, so its machine booted"
    return ""
