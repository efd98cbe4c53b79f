"""What every namespace has: a service account named `default`, and the CA by which its pods know the API server.

The server writes its CA into `kube-system`, where no tenant writes; the others are copies of that.
Source of the behaviour: kubernetes/pkg/controller/serviceaccount and pkg/controller/certificates/rootcacertpublisher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cuboid.kube import objects
from cuboid.kube.client import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from cuboid.kube.controller.instructions import NOTHING, Create, Plan, Update
from cuboid.kube.controller.view import Change, Key, View, Watch

Object = dict[str, Any]
Raw = Mapping[str, Any]

ACCOUNT = "default"
ROOT_CA = "kube-root-ca.crt"
CA_KEY = "ca.crt"
HOME = "kube-system"
_NOTE = "kubernetes.io/description"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


def of_namespace(change: Change, view: View) -> Iterable[Key]:
    if change.type != "DELETED":
        yield Key("", objects.name(change.new))


def _named(name: str) -> Any:
    def keys(change: Change, view: View) -> Iterable[Key]:
        if objects.name(change.new) == name and change.type != "ADDED":
            yield Key("", objects.namespace(change.new))

    return keys


def _of_ca(change: Change, view: View) -> Iterable[Key]:
    """A copy that was changed or removed; all of them when the server's own changes."""
    if objects.name(change.new) != ROOT_CA:
        return ()
    if objects.namespace(change.new) == HOME:
        return [Key("", objects.name(namespace)) for namespace in view.select(NAMESPACES)]
    return [Key("", objects.namespace(change.new))]


def _alive(view: View, name: str) -> bool:
    namespace = view.get(NAMESPACES, "", name)
    return namespace is not None and not objects.deleting(namespace) and objects.phase(namespace) != "Terminating"


class ServiceAccountController:
    """The key is a namespace."""

    name = "serviceaccount"
    watches = (Watch(NAMESPACES, of_namespace, initial=True), Watch(SERVICE_ACCOUNTS, _named(ACCOUNT)))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        if not _alive(view, key.name) or view.get(SERVICE_ACCOUNTS, key.name, ACCOUNT) is not None:
            return NOTHING
        body = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": key.name}}
        return Plan((Create(SERVICE_ACCOUNTS, body, key.name, exists_is_fine=True),))


class RootCaController:
    """The key is a namespace."""

    name = "root-ca-certificate-publisher"
    watches = (Watch(NAMESPACES, of_namespace, initial=True), Watch(CONFIG_MAPS, _of_ca))

    def plan(self, key: Key, view: View, now: float) -> Plan:
        own = view.get(CONFIG_MAPS, HOME, ROOT_CA)
        if key.name == HOME or own is None or not _alive(view, key.name):
            return NOTHING
        wanted = config_map(key.name, own.get("data", {}).get(CA_KEY, ""))
        current = view.get(CONFIG_MAPS, key.name, ROOT_CA)
        if current is None:
            return Plan((Create(CONFIG_MAPS, wanted, key.name, exists_is_fine=True),))
        if current.get("data") == wanted["data"] and not current.get("binaryData"):
            return NOTHING
        return Plan((Update(CONFIG_MAPS, {**wanted, "metadata": current["metadata"]}),))


def config_map(namespace: str, authority: str) -> Object:
    """`authority` is the CA's certificate, PEM."""
    metadata = {"name": ROOT_CA, "namespace": namespace, "annotations": {_NOTE: _DESCRIPTION}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {CA_KEY: authority}}
