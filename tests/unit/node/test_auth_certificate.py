"""The node agent's certificate, made anew while it serves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette

from cuboid.node.kubelet import serve
from cuboid.node.kubelet.serve import Keys, serve_kubelet
from cuboid.server.tls import Authority, client_context


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(serve, "LOOK_SECONDS", 0.05)
    yield


async def test_a_new_certificate_is_shown_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.server("node", ["localhost"])
    client = client_context(authority.ca_file, authority.client("me", "apiserver", "system:masters"))

    async def shown(port: int) -> bytes:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    async with serve_kubelet(Starlette(), "127.0.0.1", 0, Keys.of_folder(tmp_path)) as port:
        before = await shown(port)
        authority.server("node", ["localhost", "another.example"])
        async with asyncio.timeout(10):
            while await shown(port) == before:
                await asyncio.sleep(0.05)


async def test_a_user_with_a_certificate_is_not_let_in_past_the_api_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.server("node", ["localhost"])

    async def answer(name: str, group: str) -> bytes:
        client = client_context(authority.ca_file, authority.client(name, name, group))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        try:
            writer.write(b"GET /pods HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return await reader.read()
        except OSError:
            return b""
        finally:
            writer.close()

    async with serve_kubelet(Starlette(), "127.0.0.1", 0, Keys.of_folder(tmp_path)) as port:
        assert await answer("jane", "devs") == b""
        assert await answer("nobody", "") == b""
        assert (await answer("apiserver", "system:masters")).startswith(b"HTTP/1.1 404")
