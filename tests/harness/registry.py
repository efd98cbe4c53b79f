"""A real registry (Debian's docker-registry) on loopback, with and without a login and TLS."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from cuboid.lib import proc

START_SECONDS = 15.0


def free_port() -> int:
    """A port that was free a moment ago: the registry cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RegistryOptions:
    htpasswd: Path | None = None
    token_realm: str = ""
    token_root: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def running_registry(folder: Path, options: RegistryOptions | None = None) -> AsyncIterator[str]:
    """Yields HOST:PORT once it listens; it ends with the block."""
    port = free_port()
    config = folder / "registry.yml"
    config.write_text(yaml.safe_dump(_configuration(folder, port, options or RegistryOptions())))
    log = folder / "registry.log"
    with log.open("wb") as output:
        async with proc.spawn(
            ["docker-registry", "serve", config], stdout=output.fileno(), stderr=output.fileno(),
            env={"OTEL_TRACES_EXPORTER": "none"},
        ) as process:  # fmt: skip
            await _listening(port, process, log)
            yield f"localhost:{port}"


def _configuration(folder: Path, port: int, options: RegistryOptions) -> dict[str, Any]:
    http: dict[str, Any] = {"addr": f"127.0.0.1:{port}"}
    if options.certificate and options.key:
        http["tls"] = {"certificate": str(options.certificate), "key": str(options.key)}
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": http,
    }
    if options.htpasswd:
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(options.htpasswd)}}
    if options.token_realm:
        config["auth"] = {
            "token": {
                "realm": options.token_realm, "service": "test-registry", "issuer": "test-issuer",
                "rootcertbundle": str(options.token_root),
            }
        }  # fmt: skip
    return {**config, **options.extra}


async def _listening(port: int, process: proc.Process, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return
