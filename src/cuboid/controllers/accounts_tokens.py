"""Secrets of type `kubernetes.io/service-account-token`: filled with a token, removed with their account.

Source of the behaviour: kubernetes/pkg/controller/serviceaccount/tokens_controller.go.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from cuboid.controllers.accounts import CA_KEY, HOME, ROOT_CA
from cuboid.kube import objects
from cuboid.kube.client import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from cuboid.kube.controller.instructions import NOTHING, Delete, Plan, Update
from cuboid.kube.controller.view import Change, Key, View, Watch

Object = dict[str, Any]
Raw = Mapping[str, Any]

TYPE = "kubernetes.io/service-account-token"
NAME_NOTE = "kubernetes.io/service-account.name"
UID_NOTE = "kubernetes.io/service-account.uid"


class Issuer(Protocol):
    """Signs tokens; without I/O."""

    def for_secret(self, account: Raw, secret: Raw) -> str:
        """A token of this account that is valid for as long as the secret exists."""
        ...


def of_tokens(change: Change, view: View) -> Iterable[Key]:
    if change.new.get("type") == TYPE and change.type != "DELETED":
        yield Key(objects.namespace(change.new), objects.name(change.new))


def of_account(change: Change, view: View) -> Iterable[Key]:
    """The tokens of an account that came or went."""
    if change.type == "MODIFIED":
        return
    namespace, name = objects.namespace(change.new), objects.name(change.new)
    for secret in view.select(SECRETS, namespace):
        if secret.get("type") == TYPE and objects.notes(secret).get(NAME_NOTE) == name:
            yield Key(namespace, objects.name(secret))


class TokenSecretController:
    name = "serviceaccount-token"
    watches = (Watch(SECRETS, of_tokens, initial=True), Watch(SERVICE_ACCOUNTS, of_account))

    def __init__(self, issuer: Issuer) -> None:
        self._issuer = issuer

    def plan(self, key: Key, view: View, now: float) -> Plan:
        secret = view.get(SECRETS, key.namespace, key.name)
        if secret is None or secret.get("type") != TYPE or objects.deleting(secret):
            return NOTHING
        notes = objects.notes(secret)
        account = view.get(SERVICE_ACCOUNTS, key.namespace, notes.get(NAME_NOTE, ""))
        if account is None or notes.get(UID_NOTE, objects.uid(account)) != objects.uid(account):
            return Plan((Delete(SECRETS, key.name, key.namespace, uid=objects.uid(secret)),))
        wanted = self._data(secret, account, key.namespace, view)
        if wanted == (secret.get("data") or {}) and UID_NOTE in notes:
            return NOTHING
        metadata = {**secret["metadata"], "annotations": {**notes, UID_NOTE: objects.uid(account)}}
        return Plan((Update(SECRETS, {**secret, "metadata": metadata, "data": wanted}),))

    def _data(self, secret: Raw, account: Raw, namespace: str, view: View) -> Object:
        data: Object = dict(secret.get("data") or {})
        own = view.get(CONFIG_MAPS, HOME, ROOT_CA)
        data["namespace"] = _encoded(namespace)
        if own is not None:
            data[CA_KEY] = _encoded(own.get("data", {}).get(CA_KEY, ""))
        if not data.get("token"):
            data["token"] = _encoded(self._issuer.for_secret(account, secret))
        return data


def _encoded(plain: str) -> str:
    return base64.b64encode(plain.encode()).decode()
