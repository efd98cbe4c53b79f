"""Keys of one installation: a CA, the server's certificate, and client certificates for the kubelet's endpoint.

All files are in one folder: `ca.crt` and `ca.key`, `server.crt` and `server.key`, `kubelet-client.crt` and
`kubelet-client.key`. Keys have mode 0600. `ensure` makes what is missing and renews what soon expires.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cuboid.lib.errors import InvalidError
from cuboid.lib.paths import write_atomic

CA_DAYS = 3650
LEAF_DAYS = 365
RENEW_DAYS = 30
"""A certificate with fewer days left is made anew at start."""
_BACKDATE = datetime.timedelta(minutes=5)  # clocks of clients may be late


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, PEM files."""

    cert: Path
    key: Path


class Authority:
    """The CA in `folder`; made on first use, 10 years."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_file = folder / "ca.crt"
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        if not self.ca_file.exists():
            self._make_ca()

    def _make_ca(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cuboid-ca")])
        usage = _key_usage(sign_certs=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = _builder(name, name, key, CA_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(usage, critical=True).add_extension(identifier, critical=False)
        write_atomic(self.folder / "ca.key", _pem_key(key), mode=0o600)
        write_atomic(self.ca_file, _pem(builder.sign(key, hashes.SHA256())), mode=0o644)

    def server(self, name: str, hosts: Iterable[str]) -> Pair:
        """A serving certificate `name`.crt for these host names and addresses; kept while it fits and is fresh."""
        wanted = sorted(set(hosts))
        pair = self._pair(name)
        if not _usable(pair, self.ca_file, wanted):
            alternatives = x509.SubjectAlternativeName([_general_name(host) for host in wanted])
            self._issue(pair, f"cuboid-{name}", "", ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
        return pair

    def client(self, name: str, common_name: str, organization: str) -> Pair:
        """A client certificate; in Kubernetes' manner the common name is the user and the organization the group."""
        pair = self._pair(name)
        if not _usable(pair, self.ca_file, []):
            self._issue(pair, common_name, organization, ExtendedKeyUsageOID.CLIENT_AUTH, None)
        return pair

    def _pair(self, name: str) -> Pair:
        return Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")

    def _issue(
        self,
        pair: Pair,
        common: str,
        group: str,
        usage: x509.ObjectIdentifier,
        names: x509.SubjectAlternativeName | None,
    ) -> None:
        cert, key = self.signer().issue(common, group, usage, names)
        write_atomic(pair.key, key, mode=0o600)
        write_atomic(pair.cert, cert, mode=0o644)

    def signer(self) -> Signer:
        """The CA itself, for a process that may not read this folder later."""
        ca = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
        key = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidError(f"{self.folder / 'ca.key'} is not an elliptic curve key")
        return Signer(ca, key)


@dataclass(frozen=True)
class Signer:
    """Issues certificates, in memory."""

    ca: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(
        self, common: str, group: str, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None
    ) -> tuple[bytes, bytes]:
        """Certificate and key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)]
        attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
        builder = _builder(x509.Name(attributes), self.ca.subject, key, LEAF_DAYS)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_key_usage(sign_certs=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(authority, critical=False)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return _pem(builder.sign(self.key, hashes.SHA256())), _pem_key(key)

    def renewed(self, cert: bytes) -> tuple[bytes, bytes]:
        """Another certificate for what this one (PEM) is for, with a new key."""
        old = x509.load_pem_x509_certificate(cert)
        rows = {row.oid: str(row.value) for row in old.subject}
        usage = next(iter(old.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value))
        try:
            names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            names = None
        return self.issue(rows[NameOID.COMMON_NAME], rows.get(NameOID.ORGANIZATION_NAME, ""), usage, names)


def days_left(cert: bytes, now: datetime.datetime | None = None) -> float:
    """Until a certificate (PEM) ends."""
    left = x509.load_pem_x509_certificate(cert).not_valid_after_utc - (now or datetime.datetime.now(datetime.UTC))
    return left / datetime.timedelta(days=1)


def server_context(pair: Pair, clients: Path | None = None) -> ssl.SSLContext:
    """For a server whose clients bring a token or, with the CA's file `clients`, a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(pair.cert, pair.key)
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(ca_file: Path, pair: Pair | None = None) -> ssl.SSLContext:
    """For a client that trusts this CA alone and, with `pair`, shows who it is."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca_file))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, sign_certs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certs,
        crl_sign=sign_certs,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usable(pair: Pair, ca_file: Path, hosts: list[str]) -> bool:
    """Made by this CA, not about to expire, and good for these hosts."""
    if not (pair.cert.exists() and pair.key.exists()):
        return False
    cert = x509.load_pem_x509_certificate(pair.cert.read_bytes())
    ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
    left = cert.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left < datetime.timedelta(days=RENEW_DAYS) or cert.issuer != ca.subject:
        return False
    try:
        cert.verify_directly_issued_by(ca)
        found = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return not hosts
    except (ValueError, TypeError, InvalidSignature):
        return False
    return {_general_name(host) for host in hosts} <= set(found)


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
