"""Service accounts, the CA and token secrets of namespaces."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from cuboid.controllers.accounts import HOME, ROOT_CA, RootCaController, ServiceAccountController
from cuboid.controllers.accounts_tokens import TYPE, TokenSecretController
from cuboid.kube.client import CONFIG_MAPS, NAMESPACES, SECRETS, SERVICE_ACCOUNTS
from cuboid.kube.controller.view import Controller, Key
from cuboid.lib.errors import AlreadyExistsError, NotFoundError
from tests.harness.control import World, every_interrupted_point
from tests.harness.plain_view import PlainView, settle

Object = dict[str, Any]


async def publish(world: World, authority: str) -> None:
    """What the server does at its start."""
    body = {"metadata": {"name": ROOT_CA}, "data": {"ca.crt": authority}}
    try:
        await world.create(CONFIG_MAPS, body, HOME)
    except AlreadyExistsError:
        await world.patch(CONFIG_MAPS, ROOT_CA, body, HOME)


def make() -> list[Controller]:
    return [ServiceAccountController(), RootCaController()]


async def test_a_namespace_gets_an_account_and_the_ca_and_gets_them_back() -> None:
    async with World(make) as world:
        await publish(world, "PEM")
        await world.create(NAMESPACES, {"metadata": {"name": "team"}})
        await world.settle()
        assert world.get(SERVICE_ACCOUNTS, "default", "team")
        found = world.get(CONFIG_MAPS, ROOT_CA, "team")
        assert found["data"] == {"ca.crt": "PEM"}
        assert "kubernetes.io/description" in found["metadata"]["annotations"]
        await world.delete(SERVICE_ACCOUNTS, "default", "team")
        await world.delete(CONFIG_MAPS, ROOT_CA, "team")
        await world.settle()
        assert world.get(SERVICE_ACCOUNTS, "default", "team")
        assert world.get(CONFIG_MAPS, ROOT_CA, "team")
        assert world.plans() == []


async def test_a_changed_copy_is_put_right_and_a_new_ca_reaches_all() -> None:
    async with World(make) as world:
        await publish(world, "PEM")
        await world.settle()
        await world.patch(CONFIG_MAPS, ROOT_CA, {"data": {"ca.crt": "evil", "more": "x"}})
        await world.settle()
        assert world.get(CONFIG_MAPS, ROOT_CA)["data"] == {"ca.crt": "PEM"}
        await publish(world, "NEW")
        await publish(world, "NEW")
        await world.settle()
        assert world.get(CONFIG_MAPS, ROOT_CA)["data"] == {"ca.crt": "NEW"}
        assert world.get(CONFIG_MAPS, ROOT_CA, "kube-public")["data"] == {"ca.crt": "NEW"}


async def test_nothing_is_put_into_a_namespace_that_ends() -> None:
    async with World(make) as world:
        await publish(world, "PEM")
        await world.create(NAMESPACES, {"metadata": {"name": "team"}})
        await world.settle()
        await world.delete(NAMESPACES, "team")
        await world.delete(SERVICE_ACCOUNTS, "default", "team")
        await world.settle()
        with pytest.raises(NotFoundError):
            world.get(SERVICE_ACCOUNTS, "default", "team")
        assert world.failures == []


async def test_they_are_made_from_every_interrupted_point() -> None:
    async def scenario(world: World) -> object:
        await publish(world, "PEM")
        for name in ("a", "b"):
            await world.create(NAMESPACES, {"metadata": {"name": name}})
        await world.settle()
        return world.outline(SERVICE_ACCOUNTS, CONFIG_MAPS)

    assert await every_interrupted_point(make, scenario) >= 4


# --- token secrets ---------------------------------------------------------------------------------------------------


class Issuer:
    def for_secret(self, account: Mapping[str, Any], secret: Mapping[str, Any]) -> str:
        return f"token of {account['metadata']['uid']}"


KEY = Key("ns", "tok")


def secret(**notes: str) -> Object:
    given = {f"kubernetes.io/service-account.{key}": value for key, value in notes.items()}
    return {"metadata": {"name": "tok", "namespace": "ns", "annotations": given}, "type": TYPE, "data": {}}


def world(given: Object, *accounts: str) -> PlainView:
    view = PlainView()
    view.put(SECRETS, given)
    view.put(CONFIG_MAPS, {"metadata": {"name": ROOT_CA, "namespace": "kube-system"}, "data": {"ca.crt": "PEM"}})
    for name in accounts:
        view.put(SERVICE_ACCOUNTS, {"metadata": {"name": name, "namespace": "ns", "uid": f"uid-{name}"}})
    settle(TokenSecretController(Issuer()), KEY, view)
    return view


def test_a_token_secret_is_filled_once() -> None:
    view = world(secret(name="robot"), "robot")
    found = view.get(SECRETS, "ns", "tok")
    assert found is not None
    plain = {key: base64.b64decode(value).decode() for key, value in found["data"].items()}
    assert plain == {"token": "token of uid-robot", "ca.crt": "PEM", "namespace": "ns"}
    assert found["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == "uid-robot"
    assert len(view.log) == 1


@pytest.mark.parametrize("given", [secret(name="gone"), secret(), secret(name="robot", uid="of-an-earlier-one")])
def test_a_token_secret_without_its_account_goes(given: Object) -> None:
    assert world(given, "robot").get(SECRETS, "ns", "tok") is None
