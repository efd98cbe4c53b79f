"""Certificates that are made anew while TLS contexts use them."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from cryptography import x509

from cuboid.server.renewal import Renewal
from cuboid.server.tls import LEAF_DAYS, Authority, client_context, days_left, server_context

HOSTS = ["localhost", "127.0.0.1"]


async def shown(context: ssl.SSLContext, client: ssl.SSLContext) -> tuple[x509.Certificate, str]:
    """What a server with this context shows to a new connection, and the common name that its client shows."""
    names: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peercert") or {}
        names.extend(value for part in peer.get("subject", ()) for key, value in part if key == "commonName")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        await reader.read()
        writer.close()
    return x509.load_der_x509_certificate(found), "".join(names)


async def test_new_connections_see_the_new_certificates_of_both_sides(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "keys")
    serving, mine = authority.server("server", HOSTS), authority.client("me", "user", "group")
    server = server_context(serving, authority.ca_file)
    client = client_context(authority.ca_file, mine)
    renewal = Renewal(authority.signer(), tmp_path)
    renewal.keep_fresh(server, serving)
    renewal.keep_fresh(client, mine)
    for name in ("ca.key", "server.key", "me.key"):
        (tmp_path / "keys" / name).unlink()  # the process that serves can not read them
    before, _ = await shown(server, client)
    assert renewal.look() == 0, "there is time"
    assert renewal.look(days=LEAF_DAYS + 1) == 2
    after, name = await shown(server, client)
    assert after.serial_number != before.serial_number and after.subject == before.subject
    kind = x509.SubjectAlternativeName
    assert after.extensions.get_extension_for_class(kind) == before.extensions.get_extension_for_class(kind)
    assert name == "user"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys"], "no key is left behind"


def test_days_left_are_those_of_the_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    assert LEAF_DAYS - 1 < days_left(authority.server("s", HOSTS).cert.read_bytes()) <= LEAF_DAYS
