"""What it costs to know who calls and whether they may, with a thousand tenants; and what admission adds to a creation.

CPU time of this process, inside the server's code and without HTTP: the decision is part of every request, and the
bar is what the hot path leaves for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from starlette.types import Scope

from bench.common import Result, summary, verdict
from cuboid.kube import kinds, namespaces
from cuboid.kube.admit import chain
from cuboid.kube.admit.chain import Options
from cuboid.kube.cache import Cache
from cuboid.kube.kinds import Kinds
from cuboid.kube.rbac.attributes import Attributes
from cuboid.kube.rbac.live import LivePolicy, ensure_builtin
from cuboid.kube.rbac.nodes import NodeRules
from cuboid.kube.registry import Registry, WriteOptions
from cuboid.kube.store import Store
from cuboid.kube.tenants import ROLES, group_of, holder
from cuboid.server.authn.authenticator import TokenAuthenticator
from cuboid.server.authn.credential import Credential
from cuboid.server.authz.authorizer import Authorizer
from cuboid.server.gate import Gate
from cuboid.server.tokens import digest

TENANTS = 1_000
ROUNDS = 20
PODS = 300
BAR = 20.0  # µs


def measure() -> Result:
    return asyncio.run(_measure())


async def _measure() -> Result:
    folder = Path(tempfile.mkdtemp(prefix="cbr-", dir="/dev/shm"))
    store = Store(folder / "store.db")
    try:
        registry = await _registry(store)
        policy = LivePolicy()
        policy.load(registry)
        await ensure_builtin(registry)
        _bind(policy)
        authorizer = Authorizer(policy, NodeRules(registry))
        gate = Gate(TokenAuthenticator(("us",), _checking()), authorizer)
        first = await _entering(gate)
        enter = [await _entering(gate) for _ in range(ROUNDS)]
        decide = [_deciding(authorizer) for _ in range(ROUNDS)]
        bare = [await _creating(registry) for _ in range(ROUNDS)]
        registry.admission = chain.make(registry, policy, authorizer.allows, Options(pod_overhead_mib=32))
        admitted = [await _creating(registry) for _ in range(ROUNDS)]
        await registry.create(kinds.builtin("ResourceQuota"), "default", _QUOTA, WriteOptions())
        counted = [await _creating(registry) for _ in range(ROUNDS)]
    finally:
        store.close()
        shutil.rmtree(folder)
    found = summary(enter, 1)
    return {
        "what": f"who calls and may they, {TENANTS} tenants", "unit": "CPU µs", "enter": found,
        "first request after a change": round(first, 1), "decision alone": summary(decide, 1),
        "floor: the token's hash": summary([_hashing() for _ in range(ROUNDS)], 1),
        "create a pod, no admission": summary(bare, 1), "create a pod": summary(admitted, 1),
        "create a pod under a quota": summary(counted, 1),
        "bar": f"enter, median <= {BAR} µs", "verdict": verdict(found["median"] <= BAR),
    }  # fmt: skip


_QUOTA = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "100000", "requests.cpu": "100000"}}}


async def _registry(store: Store) -> Registry:
    served = Kinds()
    cache = Cache(store, {kind.stored_as: kind.strategy.selectable for kind in served.stored()})
    registry = Registry(store, cache, served)
    await namespaces.ensure_permanent(registry)
    return registry


def _bind(policy: LivePolicy) -> None:
    for number in range(TENANTS):
        for role in ROLES:
            metadata = {"name": role, "namespace": f"t{number}"}
            subjects = [{"kind": "Group", "name": group_of(f"t{number}", role)}]
            ref = {"kind": "ClusterRole", "name": role}
            policy.put("RoleBinding", {"metadata": metadata, "roleRef": ref, "subjects": subjects})


def _checking() -> Any:
    users = {digest(f"token-{n}"): Credential(holder(f"t{n}", "edit", "x")) for n in range(TENANTS)}

    async def check(token: str) -> Credential | None:
        return users.get(digest(token))

    return check


def _scope(number: int) -> Scope:
    headers = [(b"host", b"x"), (b"accept", b"*/*"), (b"authorization", f"Bearer token-{number}".encode())]
    path = f"/api/v1/namespaces/t{number}/pods"
    return {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": headers}


async def _entering(gate: Gate) -> float:
    scopes = [_scope(number) for number in range(TENANTS)]
    started = time.process_time()
    for scope in scopes:
        await gate.enter(scope)
    return (time.process_time() - started) / TENANTS * 1e6


def _deciding(authorizer: Authorizer) -> float:
    users = [holder(f"t{number}", "edit", "x") for number in range(TENANTS)]
    started = time.process_time()
    for number, user in enumerate(users):
        authorizer.allows(user, Attributes("create", "", "v1", "pods", "", f"t{number}"))
    return (time.process_time() - started) / TENANTS * 1e6


def _hashing() -> float:
    tokens = [f"token-{number}".encode() for number in range(TENANTS)]
    started = time.process_time()
    for token in tokens:
        hashlib.sha256(token).hexdigest()
    return (time.process_time() - started) / TENANTS * 1e6


async def _creating(registry: Registry) -> float:
    pod = kinds.builtin("Pod")
    container = {"name": "main", "image": "i", "resources": {"requests": {"cpu": "1", "memory": "64Mi"}}}
    body = {"metadata": {"generateName": "p-"}, "spec": {"containers": [container]}}
    started = time.process_time()
    await asyncio.gather(*(registry.create(pod, "default", body, WriteOptions()) for _ in range(PODS)))
    return (time.process_time() - started) / PODS * 1e6
