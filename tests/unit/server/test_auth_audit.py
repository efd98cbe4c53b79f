"""The audit log's file: batches, rotation, and what is told when the disk does not take it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cuboid.server import audit
from cuboid.server.audit import AuditLog


def rows(folder: Path) -> list[dict[str, Any]]:
    files = [*sorted(folder.glob("audit-*.log")), folder / audit.FILE]
    return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]


def test_what_was_added_is_there_when_it_is_closed(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "a", size=1 << 20, kept=2)
    for number in range(100):
        log.add({"n": number})
    log.close()
    assert [row["n"] for row in rows(tmp_path / "a")] == list(range(100))
    assert (tmp_path / "a" / audit.FILE).stat().st_mode & 0o777 == 0o600


def test_files_are_bounded_in_size_and_number(tmp_path: Path) -> None:
    for number in range(6):
        log = AuditLog(tmp_path, size=50, kept=2)
        log.add({"n": number, "text": "x" * 100})
        log.close()
    assert len(list(tmp_path.glob("audit-*.log"))) == 2
    assert [row["n"] for row in rows(tmp_path)] == [4, 5], "the newest are kept"


def test_what_could_not_be_kept_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    log = AuditLog(folder, size=1 << 20, kept=1)
    log._closed = True  # its thread is out of the way
    log._thread.join(timeout=5)
    for number in range(audit.MOST + 7):
        log.add({"n": number})
    log._flush()
    assert rows(folder)[-1]["lost"] == 7
    (folder / audit.FILE).unlink()
    (folder / audit.FILE).mkdir()
    log.add({"n": 0})
    log._flush()
    (folder / audit.FILE).rmdir()
    log._flush()
    assert rows(folder)[-1]["lost"] == 1


def test_strangers_do_not_push_out_what_others_did(tmp_path: Path) -> None:
    """Whoever reaches the port could rotate everything away with requests that are refused."""
    folder = tmp_path / "a"
    log = AuditLog(folder, size=1 << 20, kept=1)
    log._closed = True  # its thread is out of the way
    log._thread.join(timeout=5)
    for number in range(audit.STRANGERS + 1_000):
        log.add({"n": number}, stranger=True)
    log.add({"n": "known"})
    log._flush()
    assert [row.get("n") for row in rows(folder)] == [*range(audit.STRANGERS), "known", None]
    assert rows(folder)[-1]["strangers"] == 1_000
    log.add({"n": "next"}, stranger=True)
    log._flush()
    assert rows(folder)[-1]["n"] == "next"
