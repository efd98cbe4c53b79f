"""For all tests: short temporary folders."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has at most 107 bytes, pytest's own are longer."""
    folder = Path(tempfile.mkdtemp(prefix="cbt-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
