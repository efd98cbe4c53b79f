"""Why a Firecracker process ended, from what it left: its log, the guest's console, the kernel's count of kills. Pure.

The process is nobody's child by then, so there is no exit code; Firecracker writes it to its log. The guest boots with
`reboot=t`: its panic is a triple fault, an orderly end a reset by the keyboard controller. Up to 1.14 Firecracker
calls the first a success as well, but names it in the line before.
"""

from __future__ import annotations

from cuboid.vmm.base import EndCause, Ended
from cuboid.vmm.qemu.console import last_words

TRIPLE_FAULT = ("KVM_EXIT_SHUTDOWN", "Unexpected exit reason on vcpu run: Shutdown")
SUCCESS = "Firecracker exiting successfully"
FAILURE = "Firecracker exiting with error"
BANNER = "Running Firecracker v"
SILENT_PANIC = "the guest's kernel gave up; its console is off (vmm.firecracker_console shows it)"
OWN_LIMIT = "it reached its memory limit"
OTHERS = "the host, or a group that the VMM is in, had no memory left"


def conclude(log: str, console: str, said: str, oom_kills: int = 0, limit_hits: int = 0) -> Ended:
    """`log` is the VMM's log, `console` the guest's, `said` what the VMM printed before it had a log."""
    if any(words in log for words in TRIPLE_FAULT):
        return Ended(EndCause.PANIC, _of_guest(console) or SILENT_PANIC)
    if SUCCESS in log:
        return Ended(EndCause.POWEROFF, _of_guest(console))
    if oom_kills:
        return Ended(EndCause.HOST_OOM, f"the host ended the VMM: {OWN_LIMIT if limit_hits else OTHERS}")
    return Ended(EndCause.VMM_DIED, complaint(log) or complaint(said) or "the VMM ended without a word")


def _of_guest(console: str) -> str:
    """The guest's last words. The VMM prints its name there too, before it has a log."""
    return last_words("\n".join(line for line in console.split("\n") if BANNER not in line))


def complaint(text: str) -> str:
    """The VMM's last words, without the line that only repeats the exit code."""
    lines = [line for line in last_words(text).splitlines() if FAILURE not in line]
    return lines[-1] if lines else ""
