"""The keys that sign tokens of service accounts: ES256, made at the first start, a new one every quarter.

Every key in the folder verifies; the newest signs. Removing a file takes back all that its key has signed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from cuboid.lib.errors import InvalidError
from cuboid.lib.paths import write_atomic

ALGORITHM = "ES256"
FOLDER = "account-keys"
ROTATE_DAYS = 90
_DAY = 86400.0


@dataclass(frozen=True)
class _Key:
    name: str
    private: ec.EllipticCurvePrivateKey
    made: int  # seconds since the epoch


class SigningKeys:
    def __init__(self, keys: list[_Key]) -> None:
        self._keys = {key.name: key for key in keys}
        self._newest = max(keys, key=lambda key: key.made)

    @classmethod
    def open(cls, folder: Path, now: float | None = None) -> SigningKeys:
        """Reads the keys of a server's folder; makes one if there is none, or none younger than `ROTATE_DAYS`."""
        home, moment = folder / FOLDER, time.time() if now is None else now
        home.mkdir(mode=0o700, exist_ok=True)
        keys = [_read(path) for path in sorted(home.glob("*.pem"))]
        if not keys or moment - max(key.made for key in keys) > ROTATE_DAYS * _DAY:
            keys.append(_make(home, int(moment)))
        return cls(keys)

    def sign(self, claims: Mapping[str, Any]) -> str:
        return jwt.encode(dict(claims), self._newest.private, ALGORITHM, headers={"kid": self._newest.name})

    def verified(self, token: str, issuer: str) -> dict[str, Any]:
        """Its claims; jwt.PyJWTError for what none of the keys has signed, or what is not of this time. Audiences are
        left to the caller."""
        key = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
        if key is None:
            raise jwt.InvalidTokenError("unknown key")
        wanted = {"require": ["sub", "iss", "aud", "iat"], "verify_aud": False}
        return jwt.decode(token, key.private.public_key(), [ALGORITHM], options=wanted, issuer=issuer)  # type: ignore[arg-type]

    def published(self) -> dict[str, Any]:
        """A JSON Web Key Set of the public halves."""
        return {"keys": [_public(key) for key in self._keys.values()]}


def _public(key: _Key) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(ECAlgorithm.to_jwk(key.private.public_key()))
    return {**row, "kid": key.name, "use": "sig", "alg": ALGORITHM}


def _make(home: Path, now: int) -> _Key:
    private = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    data = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    write_atomic(home / f"{now}.pem", data, mode=0o600)
    return _Key(_name(private), private, now)


def _read(path: Path) -> _Key:
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
        made = int(path.stem)
    except ValueError as error:
        raise InvalidError(f"{path} is not a key", hint="move it away; what it has signed ends with it") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise InvalidError(f"{path} is not an elliptic curve key")
    return _Key(_name(private), private, made)


def _name(private: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    data = private.public_key().public_bytes(serialization.Encoding.DER, form)
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
