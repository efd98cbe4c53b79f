"""What the driver tells the launcher (launcher.rs), and how: as words of its command line, which need no parser."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_FD = 3  # the VMM finds the plan's descriptors from here on, then the taps, in order (launcher.rs knows it too)


@dataclass(frozen=True)
class Plan:
    """All paths are the host's unless said otherwise."""

    root: str  # an empty folder; the private root is mounted there, in a namespace that only the VMM sees
    root_size: int  # bytes that the private root can hold
    binds: tuple[tuple[str, str], ...]  # (host path, path in the jail), read-only
    writable: tuple[tuple[str, str], ...]  # the same, for the VMM to write to
    links: tuple[tuple[str, str], ...]  # (target, path in the jail)
    netns: str  # "" for a new, empty one
    taps: tuple[str, ...]  # opened inside the network namespace; made there if it is a new one
    cgroups: tuple[str, ...]  # cgroup.procs files
    fds: tuple[int, ...]  # become FIRST_FD, FIRST_FD + 1, …; the taps follow
    stderr: int  # descriptor that the VMM's own messages go to
    uid: int
    max_processes: int
    max_files: int
    pid_file: str
    preload: str  # a library that the VMM is to load, path in the jail; "" for none
    argv: tuple[str, ...]  # of the VMM, paths in the jail

    def words(self) -> list[str]:
        """`key value` for each item, then `--` and the VMM's command line."""
        words = [
            "root", self.root, "root_size", str(self.root_size), "netns", self.netns, "stderr", str(self.stderr),
            "uid", str(self.uid), "max_processes", str(self.max_processes), "max_files", str(self.max_files),
            "pid_file", self.pid_file, "preload", self.preload,
        ]  # fmt: skip
        for key, pairs in (("bind", self.binds), ("writable", self.writable), ("link", self.links)):
            for first, second in pairs:
                words += [f"{key}_from", first, f"{key}_to", second]
        for key, values in (("tap", self.taps), ("cgroup", self.cgroups), ("fd", self.fds)):
            for value in values:
                words += [key, str(value)]
        return [*words, "--", *self.argv]
