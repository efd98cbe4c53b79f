"""Identity and rights of one server, put together: who calls, may they, and what keeps both current."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.admit import chain
from cuboid.kube.admit.chain import Options
from cuboid.kube.rbac.live import LivePolicy, ensure_builtin
from cuboid.kube.registry import Registry
from cuboid.lib.aio import TaskSet
from cuboid.server.authn.authenticator import TokenAuthenticator
from cuboid.server.authn.tenant_tokens import TenantTokens
from cuboid.server.authz.authorizer import Authorizer
from cuboid.server.gate import Gate
from cuboid.server.settings import ServerSettings
from cuboid.server.tokens import Tokens

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
"""The server's own name, as the issuer of tokens and as who they are for."""


@dataclass(frozen=True)
class Security:
    gate: Gate
    authenticator: TokenAuthenticator
    authorizer: Authorizer
    audiences: tuple[str, ...] = (AUDIENCE,)
    """What tokens for this server are made for."""

    def start(self, tasks: TaskSet) -> None:
        """What goes on for as long as the server serves."""
        tasks.start(self.gate.keep(), name="gate")


async def make(registry: Registry, settings: ServerSettings, tokens: Tokens) -> Security:
    """Reads what the registry has, and follows it from then on. The registry gets its admission."""
    policy = LivePolicy()
    policy.load(registry)
    await ensure_builtin(registry)
    authenticator = TokenAuthenticator(tokens.check, TenantTokens(registry).check)
    authorizer = Authorizer(policy)
    options = Options(
        pod_overhead_mib=settings.pod_overhead_mib,
        toleration_seconds=settings.toleration_seconds,
        mount_account_tokens=settings.mount_account_tokens,
        tenant_node_ports=settings.tenant_node_ports,
    )
    registry.admission = chain.make(registry, policy, authorizer.allows, options)
    return Security(Gate(authenticator, authorizer), authenticator, authorizer)
