"""Certificates of a server that runs for longer than they do: made anew before they end, without a restart.

The process that serves may neither read the CA's key nor write beside it: it has kept the CA in memory since its start.
A TLS context takes its new certificate for the connections that come; those that are open go on.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cuboid.lib.log import get_log
from cuboid.server.tls import RENEW_DAYS, Pair, Signer, days_left

log = get_log(__name__)
LOOK_SECONDS = 6 * 3600.0


@dataclass
class _Kept:
    context: ssl.SSLContext
    cert: bytes  # PEM


class Renewal:
    """`folder` is one that the process may write: a context reads its certificate from files."""

    def __init__(self, signer: Signer, folder: Path) -> None:
        self._signer = signer
        self._folder = folder
        self._kept: list[_Kept] = []

    def keep_fresh(self, context: ssl.SSLContext, pair: Pair) -> None:
        """The context has this pair loaded."""
        self._kept.append(_Kept(context, pair.cert.read_bytes()))

    async def keep(self) -> None:
        """Runs for as long as the server does."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self, days: float = RENEW_DAYS) -> int:
        """Renew what has fewer days left; how many that were."""
        late = [kept for kept in self._kept if days_left(kept.cert) < days]
        for kept in late:
            cert, key = self._signer.renewed(kept.cert)
            self._load(kept.context, cert, key)
            kept.cert = cert
            log.info("a certificate was made anew", days=round(days_left(cert)))
        return len(late)

    def _load(self, context: ssl.SSLContext, cert: bytes, key: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:  # mode 0700
            files = Path(folder) / "cert.pem", Path(folder) / "key.pem"
            files[0].write_bytes(cert)
            files[1].touch(mode=0o600)
            files[1].write_bytes(key)
            context.load_cert_chain(*files)
