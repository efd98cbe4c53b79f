"""An OpenID Connect issuer on loopback with a certificate of its own: signs tokens, rotates keys, hangs on demand."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from cuboid.server.tls import Authority, server_context


class Issuer:
    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self.ca_file = authority.ca_file
        self.asked = 0
        self.hangs = False
        self.audience = "cuboid"
        self._keys: dict[str, rsa.RSAPrivateKey] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = server_context(authority.server("issuer", ["127.0.0.1"]))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        self.rotate("one")

    def rotate(self, name: str) -> None:
        """Another key signs from now on; the older ones are gone."""
        self._keys = {name: rsa.generate_private_key(public_exponent=65537, key_size=2048)}

    def token(self, *, kid: str = "", **claims: Any) -> str:
        ((name, key),) = self._keys.items()
        now = int(time.time())
        whole = {"iss": self.url, "aud": self.audience, "sub": "jane", "iat": now, "exp": now + 300, **claims}
        return jwt.encode(whole, key, "RS256", headers={"kid": kid or name})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                if issuer.hangs:
                    time.sleep(7)
                documents = {
                    "/.well-known/openid-configuration": {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/keys"},
                    "/keys": {"keys": [issuer._public(name) for name in issuer._keys]},
                }
                body = json.dumps(documents[self.path]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        return Handler

    def _public(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = json.loads(RSAAlgorithm.to_jwk(self._keys[name].public_key()))
        return {**row, "kid": name, "use": "sig", "alg": "RS256"}

    def public_text(self) -> str:
        """The modulus, as a secret for those who confuse algorithms."""
        ((name, _),) = self._keys.items()
        return base64.b64encode(str(self._public(name)["n"]).encode()).decode()

    @contextmanager
    def running(self) -> Iterator[Issuer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(timeout=5)
