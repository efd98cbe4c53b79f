"""Client certificates: the common name is the user, each organization a group, as in Kubernetes.

The TLS library has checked the chain: only what this installation's CA has signed for clients gets here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from cuboid.kube.identity import User
from cuboid.server.authn.impersonation import AUTHENTICATED

STATE = "certified"
"""Key of the connection's state under which requests find the user."""


def user_of(connection: ssl.SSLObject | ssl.SSLSocket | None) -> User | None:
    """Who a TLS connection's certificate names; None without one, or with one that names nobody."""
    found = connection.getpeercert() if connection is not None else None
    return None if not found else _named(found)


def _named(certificate: Mapping[str, Any]) -> User | None:
    rows = [row for part in certificate.get("subject", ()) for row in part]
    names = [value for key, value in rows if key == "commonName"]
    groups = tuple(value for key, value in rows if key == "organizationName")
    return User(names[0], (*groups, AUTHENTICATED)) if names and names[0] else None
