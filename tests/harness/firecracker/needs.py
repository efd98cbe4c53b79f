"""What tests of the Firecracker driver need, and why they are skipped without it."""

from __future__ import annotations

import os

import pytest

from tests.harness.firecracker.specification import FILE

NO_SPECIFICATION = f"Firecracker's API specification is not at {FILE}: requests cannot be checked against it"

needs_specification = pytest.mark.skipif(not FILE.exists(), reason=NO_SPECIFICATION)
needs_protocol = pytest.mark.skipif(
    not FILE.exists() or os.geteuid() != 0,
    reason=NO_SPECIFICATION if os.geteuid() == 0 else "jails need root",
)
