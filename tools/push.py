"""`python -m tools.push LAYOUT REFERENCE`: push an OCI layout to a registry (for tests and benchmarks)."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cuboid.images.push import push_layout

if __name__ == "__main__":
    asyncio.run(push_layout(Path(sys.argv[1]), sys.argv[2]))
