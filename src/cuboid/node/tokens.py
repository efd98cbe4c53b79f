"""Tokens of service accounts for this node's pods: asked for once per pod and use, and again before they end.

They are kept in memory only: after a restart of the agent each pod that runs gets new ones.
Source of the times: kubernetes/pkg/kubelet/token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from cuboid.kube.client import SERVICE_ACCOUNTS, Client
from cuboid.kube.types import Pod, ServiceAccountTokenProjection
from cuboid.lib.clock import Clock, parse_rfc3339
from cuboid.lib.errors import CuboidError, InvalidError, UnavailableError
from cuboid.lib.log import get_log

log = get_log(__name__)
LIFE_USED = 0.8  # share of its life after which a token is renewed
OLDEST_SECONDS = 86_400.0  # one that lives longer is renewed after a day
AGAIN_SECONDS = 30.0  # after a renewal that failed: the old token is still good
CALL_SECONDS = 5.0


class _Use(NamedTuple):
    uid: str
    account: str
    audience: str
    seconds: int


@dataclass(frozen=True)
class _Held:
    text: str
    ends: float  # seconds since the epoch, as `due`
    due: float


class AccountTokens:
    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._held: dict[_Use, _Held] = {}

    def due(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> bool:
        """Whether the pod should get another token now."""
        held = self._held.get(_use(pod, wanted))
        return held is None or self._clock.now() >= held.due

    async def token(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str:
        """A valid one, bound to the pod. Errors are those of the API, when there is no old one that still is good."""
        use, now = _use(pod, wanted), self._clock.now()
        held = self._held.get(use)
        if held is not None and now < held.due:
            return held.text
        try:
            fresh = await self._ask(pod, use)
        except CuboidError as error:
            if held is None or now >= held.ends:
                raise
            log.warning("a pod's token is not renewed yet", pod=pod.metadata.name, error=str(error))
            fresh = _Held(held.text, held.ends, min(now + AGAIN_SECONDS, held.ends))
        self._held = {known: other for known, other in self._held.items() if other.ends > now}
        self._held[use] = fresh
        return fresh.text

    async def _ask(self, pod: Pod, use: _Use) -> _Held:
        meta, now = pod.metadata, self._clock.now()
        spec = {
            "audiences": [use.audience] if use.audience else [],
            "expirationSeconds": use.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
        }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = await self._client.create(
            SERVICE_ACCOUNTS, body, meta.namespace, name=use.account, sub="token", seconds=CALL_SECONDS
        )
        try:
            text, ends = str(answer["status"]["token"]), parse_rfc3339(answer["status"]["expirationTimestamp"])
        except (KeyError, TypeError, ValueError, InvalidError) as error:
            raise UnavailableError("the API's answer to a TokenRequest has no token in it") from error
        return _Held(text, ends, now + min((ends - now) * LIFE_USED, OLDEST_SECONDS))


def _use(pod: Pod, wanted: ServiceAccountTokenProjection) -> _Use:
    account = pod.spec.service_account_name or "default"
    return _Use(pod.metadata.uid, account, wanted.audience, wanted.expiration_seconds)
