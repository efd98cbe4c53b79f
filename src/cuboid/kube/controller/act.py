"""Carrying out a plan: instructions in their order, groups of creations in a slow start."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Protocol

from cuboid.kube import objects
from cuboid.kube.client import Client, Resource
from cuboid.kube.controller.instructions import (
    Absent,
    Create,
    Delete,
    Instruction,
    Patch,
    Plan,
    Tell,
    Together,
    Update,
)
from cuboid.lib.errors import AlreadyExistsError, ConflictError, CuboidError, NotFoundError
from cuboid.lib.log import get_log

log = get_log(__name__)

Object = dict[str, Any]
WIDEST = 32
"""Writes of a group at once: enough to share a commit, and other work of the event loop comes in between."""
Written = list[tuple[Resource, Object]]
"""Objects as the server answered them, for who waits to see them."""


class Teller(Protocol):
    """Where events go."""

    def tell(self, about: Object, type_: str, reason: str, message: str) -> None: ...


class Failure(Exception):
    """A plan ended with `error`; what was `written` before it has to be seen all the same."""

    def __init__(self, error: CuboidError, written: Written) -> None:
        super().__init__(str(error))
        self.error = error
        self.written = written


class Actor:
    def __init__(self, client: Client, teller: Teller) -> None:
        self._client = client
        self._teller = teller

    async def carry_out(self, plan: Plan) -> Written:
        """The objects as they were written. Raises the first failure; what comes behind it is left undone."""
        written: Written = []
        try:
            for instruction in plan.instructions:
                await self._do(instruction, written)
        except CuboidError as error:
            if plan.failed is not None and not isinstance(error, ConflictError | AlreadyExistsError):
                await self._say(plan.failed(error), written)
            raise Failure(error, written) from error
        return written

    async def _say(self, instructions: tuple[Instruction, ...], written: Written) -> None:
        """What a plan wants done about its failure. A second failure is only logged: the first one counts."""
        try:
            for instruction in instructions:
                await self._do(instruction, written)
        except CuboidError as error:
            log.info("a failure could not be written down", error=str(error))

    async def _do(self, instruction: Instruction, written: Written) -> None:
        if isinstance(instruction, Together):
            await self._together(instruction, written)
        elif isinstance(instruction, Tell):
            self._tell(instruction)
        elif isinstance(instruction, Delete):
            await self._delete(instruction, written)
        elif isinstance(instruction, Absent):
            await self._confirm(instruction)
        else:
            await self._write(instruction, written)

    async def _confirm(self, gone: Absent) -> None:
        try:
            found = await self._client.get(gone.resource, gone.name, gone.namespace)
        except NotFoundError:
            return
        if objects.uid(found) == gone.uid:
            raise ConflictError(f"{gone.resource.plural} {gone.name} is still there")

    def _tell(self, event: Tell | None, name: str = "") -> None:
        if event is not None:
            told = replace(event, message=event.message.replace("{name}", name)) if name else event
            self._teller.tell(told.about, told.type, told.reason, told.message)

    async def _together(self, group: Together, written: Written) -> None:
        rest, size = list(group.instructions), 1
        while rest:
            now, rest = rest[:size], rest[size:]
            results = await asyncio.gather(*(self._do(item, written) for item in now), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            size = min(size * 2, WIDEST)

    async def _write(self, instruction: Create | Update | Patch, written: Written) -> None:
        client = self._client
        if isinstance(instruction, Update):
            made = await client.update(instruction.resource, instruction.body, sub=instruction.sub)
        elif isinstance(instruction, Patch):
            made = await client.patch(
                instruction.resource,
                instruction.name,
                instruction.body,
                instruction.namespace,
                form=instruction.form,
                sub=instruction.sub,
            )
        else:
            try:
                made = await client.create(instruction.resource, instruction.body, instruction.namespace)
            except AlreadyExistsError:
                if not instruction.exists_is_fine:
                    raise
                return
            self._tell(instruction.tell, objects.name(made))
        written.append((instruction.resource, made))

    async def _delete(self, gone: Delete, written: Written) -> None:
        try:
            if gone.sub == "eviction":
                body: Object = {
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": gone.name, "namespace": gone.namespace},
                    "deleteOptions": {"preconditions": {"uid": gone.uid}} if gone.uid else {},
                }
                await self._client.create(gone.resource, body, gone.namespace, name=gone.name, sub="eviction")
            else:
                await self._client.delete(
                    gone.resource,
                    gone.name,
                    gone.namespace,
                    grace=gone.grace,
                    uid=gone.uid,
                    propagation=gone.propagation,
                )
            if gone.uid:
                written.append((gone.resource, _leaving(gone)))
        except NotFoundError:
            return
        except CuboidError as error:
            if gone.uid and error.reason == "Conflict" and "UID" in error.message:
                return  # another object has the name by now
            raise
        self._tell(gone.tell, gone.name)


def _leaving(gone: Delete) -> Object:
    """What has to be seen of a deletion: the object is gone, or is about to."""
    place = {"name": gone.name, "namespace": gone.namespace, "uid": gone.uid}
    return {"metadata": {**place, "deletionTimestamp": "asked for"}}


def told(plan: Plan) -> list[str]:
    """Names of what a plan asks for, for logs: `create pods`, `patch deployments/status web`."""
    lines: list[str] = []
    for item in plan.instructions:
        if isinstance(item, Together):
            lines += told(Plan(item.instructions))
        elif not isinstance(item, Tell | Absent):
            lines.append(f"{type(item).__name__.lower()} {item.resource.plural} {_name(item)}".strip())
    return lines


def _name(item: Create | Update | Patch | Delete) -> str:
    if isinstance(item, Patch | Delete):
        return item.name
    metadata = item.body["metadata"]
    return str(metadata.get("name") or metadata.get("generateName", ""))
