"""A real NFS server (nfs-ganesha) in a platform's network namespace."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.platform import Platform

SECONDS = 30.0  # for the server's start
CONFIGURATION = """
NFS_CORE_PARAM {{
  NFS_Port = 2049; Protocols = 4; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;
}}
NFSv4 {{
  RecoveryBackend = fs; RecoveryRoot = {folder}/recovery; Graceless = true; Lease_Lifetime = 10;
  Only_Numeric_Owners = true;
}}
EXPORT {{
  Export_Id = 1; Path = {folder}/export; Pseudo = /data; Access_Type = RW; Squash = No_Root_Squash; SecType = sys;
  Protocols = 4; Transports = TCP; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


@contextmanager
def nfs_server(place: Platform) -> Iterator[Path]:
    """The folder that it serves as `/data` on port 2049. The test is skipped if the server cannot run here."""
    if not shutil.which("ganesha.nfsd"):
        pytest.skip("nfs-ganesha is not installed (tools/setup.sh --dev)")
    folder = place.folder / "nfs"
    for name in ("export", "recovery/v4recov", "recovery/v4old"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "export").chmod(0o777)
    (folder / "conf").write_text(CONFIGURATION.format(folder=folder))
    log = folder / "log"
    command = ["ganesha.nfsd", "-F", "-f", str(folder / "conf"), "-L", str(log), "-p", str(folder / "pid")]
    with place.started(command) as process:
        until = time.monotonic() + SECONDS
        while not (log.exists() and "NFS SERVER INITIALIZED" in log.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > until:
                lines = log.read_text(errors="replace").splitlines() if log.exists() else ["no log"]
                pytest.skip(f"nfs-ganesha does not start here: {lines[-1][-200:]}")
            time.sleep(0.1)
        yield folder / "export"
