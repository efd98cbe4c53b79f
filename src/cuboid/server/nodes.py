"""Where a pod's node answers: the kubelet endpoint of its Node object, as in Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cuboid.kube import kinds, status
from cuboid.kube.registry import Registry
from cuboid.lib.errors import NotFoundError, UnavailableError

POD = kinds.builtin("Pod")
NODE = kinds.builtin("Node")
_PREFERRED = ("InternalIP", "Hostname", "ExternalIP")


@dataclass(frozen=True)
class Endpoint:
    """`base` is `https://host:port`; `boot_id` is the machine's."""

    node: str
    base: str
    port: int = 0
    boot_id: str = ""


def endpoint(node: Mapping[str, Any]) -> Endpoint:
    """UnavailableError when the node does not say where it answers."""
    name = node["metadata"]["name"]
    found = node.get("status", {})
    port = found.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port", 0)
    addresses = {item.get("type"): item.get("address", "") for item in reversed(found.get("addresses", []))}
    host = next((addresses[kind] for kind in _PREFERRED if addresses.get(kind)), "")
    if not port or not host:
        raise UnavailableError(f'node "{name}" does not say where its agent answers', hint="is the node agent running?")
    boot_id = str(found.get("nodeInfo", {}).get("bootID", ""))
    return Endpoint(name, f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}", port, boot_id)


def of_pod(registry: Registry, pod: Mapping[str, Any]) -> Endpoint:
    name = pod["spec"].get("nodeName", "")
    if not name:
        raise status.bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    entry = registry.of(NODE).get("", name)
    if entry is None:
        raise NotFoundError(f'nodes "{name}" not found')
    return endpoint(entry.object())


def container_of(pod: Mapping[str, Any], asked: str) -> str:
    """The container that is meant; bad_request in Kubernetes' words when it is none or not clear."""
    spec, metadata = pod["spec"], pod["metadata"]
    mains = [c["name"] for c in spec.get("containers", [])]
    inits = [c["name"] for c in spec.get("initContainers", [])]
    debugs = [c["name"] for c in spec.get("ephemeralContainers", [])]
    name = metadata["name"]
    if asked:
        if asked not in mains + inits + debugs:
            raise status.bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default: str = metadata.get("annotations", {}).get("kubectl.kubernetes.io/default-container", "")
    if default in mains:
        return default
    if len(mains) == 1:
        return str(mains[0])
    extra = f" or one of the init containers: [{' '.join(inits)}]" if inits else ""
    raise status.bad_request(
        f"a container name must be specified for pod {name}, choose one of: [{' '.join(mains)}]{extra}"
    )
