"""Identity and rights of one server, put together: who calls, may they, and what keeps both current."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cuboid.controllers.accounts import CA_KEY, HOME, ROOT_CA
from cuboid.kube import kinds
from cuboid.kube.admit import chain
from cuboid.kube.admit.chain import Options
from cuboid.kube.rbac.live import LivePolicy, ensure_builtin
from cuboid.kube.rbac.nodes import NodeRules
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.lib.aio import TaskSet
from cuboid.server.audit import AuditLog
from cuboid.server.authn.account_tokens import AccountTokens
from cuboid.server.authn.authenticator import Check, TokenAuthenticator
from cuboid.server.authn.oidc import OidcTokens, Provider
from cuboid.server.authn.signing import SigningKeys
from cuboid.server.authn.tenant_tokens import TenantTokens
from cuboid.server.authz.authorizer import Authorizer
from cuboid.server.gate import Gate
from cuboid.server.renewal import Renewal
from cuboid.server.settings import ServerSettings
from cuboid.server.tls import Authority
from cuboid.server.tokens import Tokens

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
"""The server's own name, as the issuer of tokens and as who they are for."""


@dataclass(frozen=True)
class Material:
    """What is read of the server's folder with the rights of the start."""

    tokens: Tokens
    keys: SigningKeys
    authority: bytes  # the CA's certificate, PEM
    data: Path  # the folder that the server writes

    @classmethod
    def open(cls, folder: Path) -> Material:
        return cls(
            Tokens.open(folder), SigningKeys.open(folder), Authority(folder).ca_file.read_bytes(), folder / "data"
        )


@dataclass(frozen=True)
class Security:
    gate: Gate
    authenticator: TokenAuthenticator
    authorizer: Authorizer
    accounts: AccountTokens
    keys: SigningKeys
    audit: AuditLog | None
    renewal: Renewal
    audiences: tuple[str, ...] = (AUDIENCE,)
    """What tokens for this server are made for."""

    def start(self, tasks: TaskSet) -> None:
        """What goes on for as long as the server serves."""
        tasks.start(self.gate.keep(), name="gate")
        tasks.start(self.renewal.keep(), name="certificates")
        if self.audit is not None:
            tasks.start(self.audit.keep(), name="audit")


async def make(registry: Registry, settings: ServerSettings, material: Material, renewal: Renewal) -> Security:
    """Reads what the registry has, and follows it from then on. The registry gets its admission."""
    policy = LivePolicy()
    policy.load(registry)
    await ensure_builtin(registry)
    await _publish(registry, material.authority.decode())
    accounts = AccountTokens(registry, material.keys, AUDIENCE)
    checks: list[Check] = [material.tokens.check, TenantTokens(registry).check, accounts.check]
    if settings.oidc_issuer:
        checks.append(OidcTokens(_provider(settings)).check)
    authenticator = TokenAuthenticator((AUDIENCE,), *checks)
    authorizer = Authorizer(policy, NodeRules(registry))
    options = Options(
        pod_overhead_mib=settings.pod_overhead_mib,
        toleration_seconds=settings.toleration_seconds,
        mount_account_tokens=settings.mount_account_tokens,
        tenant_node_ports=settings.tenant_node_ports,
        service_subnet=settings.service_subnet,
    )
    registry.admission = chain.make(registry, policy, authorizer.allows, options)
    size = settings.audit_mib << 20
    audit = AuditLog(material.data / "audit", size=size, kept=settings.audit_files) if size else None
    return Security(Gate(authenticator, authorizer), authenticator, authorizer, accounts, material.keys, audit, renewal)


def _provider(settings: ServerSettings) -> Provider:
    return Provider(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        username_claim=settings.oidc_username_claim,
        username_prefix=settings.oidc_username_prefix,
        groups_claim=settings.oidc_groups_claim,
        groups_prefix=settings.oidc_groups_prefix,
        ca_file=settings.oidc_ca_file,
    )


async def _publish(registry: Registry, authority: str) -> None:
    """The CA for the pods of all namespaces, in the one that its copies are made from."""
    kind, body = kinds.builtin("ConfigMap"), {"metadata": {"name": ROOT_CA}, "data": {CA_KEY: authority}}
    entry = registry.of(kind).get(HOME, ROOT_CA)
    if entry is None:
        await registry.create(kind, HOME, body, WriteOptions())
    elif entry.object().get("data") != body["data"]:
        await registry.update(kind, HOME, ROOT_CA, body, WriteOptions())
