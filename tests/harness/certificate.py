"""A certificate that nobody has reason to believe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(name: str = "nobody.example") -> str:
    """Key and certificate, PEM; it ended yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - timedelta(days=2)).not_valid_after(now - timedelta(days=1))
    )
    certificate = builder.sign(key, hashes.SHA256())
    pkcs8 = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, pkcs8, serialization.NoEncryption())
    return (secret + certificate.public_bytes(serialization.Encoding.PEM)).decode()
