"""Firewall rules that CNI plugins forget.

`bridge` finds the addresses to forget masquerading for on the pod's interface: when that is gone before its DEL (an
interrupted DEL that is repeated, a namespace that was removed), the pod's rules in the nat table stay for ever. They
name the pod in their comment, as those of `portmap` do.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cuboid.lib import proc

_DEADLINE = 5.0  # s, one call of iptables
_CHAIN = re.compile(r"CNI-[A-Za-z0-9-]{1,24}")


def removal(saved: str, network: str, pod_uid: str) -> str:
    """Input of `iptables-restore --noflush` that removes the pod's rules from `iptables-save -t nat`; "" if none."""
    mine = f'name: "{network}" id: "{pod_uid}"'
    rules = [line for line in saved.splitlines() if line.startswith("-A ") and mine in _comment(line)]
    if not rules:
        return ""
    chains = sorted({chain for line in rules if (chain := _target(line))})
    lines = [f"-D {line.removeprefix('-A ')}" for line in rules]
    lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
    return "\n".join(["*nat", *lines, "COMMIT", ""])


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # another program's comment
        return []


def _after(line: str, option: str) -> str:
    words = _words(line)
    at = words.index(option) + 1 if option in words else len(words)
    return words[at] if at < len(words) else ""


def _comment(line: str) -> str:
    return _after(line, "--comment")


def _target(line: str) -> str:
    """The plugin's chain for this pod that a rule leads to."""
    target = _after(line, "-j")
    shared = target.startswith(("CNI-HOSTPORT", "CNI-FORWARD", "CNI-ADMIN"))
    return target if _CHAIN.fullmatch(target) and not shared else ""


async def forget(network: str, pod_uid: str, iptables: Sequence[str], host_netns: Path | None) -> None:
    """Remove what is left of the pod in the nat table. Idempotent."""
    prefix = ["nsenter", f"--net={host_netns}", "--"] if host_netns else []
    for program in iptables:
        save, restore = (proc.find(f"{program}-{verb}", package="iptables") for verb in ("save", "restore"))
        saved = await proc.run([*prefix, save, "-t", "nat"], timeout=_DEADLINE)
        if lines := removal(saved.text, network, pod_uid):
            command = [*prefix, restore, "--wait", "--noflush"]
            await proc.run(command, timeout=_DEADLINE, stdin=lines.encode())
