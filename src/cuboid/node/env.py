"""The environment of a container: image, envFrom, env with references and $(VAR) expansion, in Kubernetes' order."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cuboid.kube.types import Container, EnvFromSource, EnvVar, EnvVarSource, KeySelector, Pod
from cuboid.lib.errors import InvalidError
from cuboid.node.downward import field_value, resource_value
from cuboid.node.objects import ObjectReader, PodFacts, config_map_data, secret_data

__all__ = ["CreateContainerConfigError", "ObjectReader", "PodFacts", "expand", "expand_args", "resolve_env"]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


class CreateContainerConfigError(InvalidError):
    """The container's configuration refers to what is not there; it may come, so the start is tried again."""

    reason = "CreateContainerConfigError"


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, or stays if there is none; `$$` becomes `$`."""

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        return "$" if name is None else values.get(name, match[0])

    return _REFERENCE.sub(replaced, text)


def expand_args(args: Sequence[str], env: Sequence[str]) -> list[str]:
    """Command and arguments with `$(NAME)` replaced from the container's environment (`KEY=VALUE` lines)."""
    values = _table(env)
    return [expand(arg, values) for arg in args]


def _table(env: Sequence[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in env)
    return {key: value for key, _, value in pairs if key}


async def resolve_env(
    pod: Pod, container: Container, image_env: tuple[str, ...], objects: ObjectReader, facts: PodFacts,
    services: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """The complete environment as `KEY=VALUE`. CreateContainerConfigError names the object and key that is missing.

    `services` are the variables that tell where services are; the container's own win.
    """
    own: dict[str, str] = {}
    for source in container.env_from:
        own |= await _from_object(pod, source, objects)
    for variable in container.env:
        value = await _value(pod, container, variable, own, objects, facts)
        if value is not None:
            own[variable.name] = value
    defaults = {"PATH": DEFAULT_PATH} | ({"HOSTNAME": facts.hostname} if facts.hostname else {})
    defaults |= {"TERM": "xterm"} if container.tty else {}
    complete = defaults | _table(image_env) | dict(services or {}) | own
    return [f"{key}={value}" for key, value in complete.items()]


async def _from_object(pod: Pod, source: EnvFromSource, objects: ObjectReader) -> dict[str, str]:
    reference = source.config_map_ref or source.secret_ref
    if reference is None:
        return {}
    kind = "configmap" if source.config_map_ref else "secret"
    data = await _data(kind, pod.metadata.namespace, reference.name, objects)
    if data is None:
        if reference.optional:
            return {}
        raise CreateContainerConfigError(f'{kind} "{reference.name}" not found')
    return {
        source.prefix + key: _text(value, kind, reference.name, key) for key, value in data.items() if "=" not in key
    }


async def _value(
    pod: Pod, container: Container, variable: EnvVar, own: dict[str, str], objects: ObjectReader, facts: PodFacts
) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value, own)
    try:
        if source.field_ref:
            return field_value(pod, source.field_ref, facts)
        if source.resource_field_ref:
            return resource_value(pod, container, source.resource_field_ref, facts)
    except InvalidError as error:
        raise CreateContainerConfigError(f"variable {variable.name}: {error.message}", hint=error.hint) from error
    return await _from_key(pod, source, objects)


async def _from_key(pod: Pod, source: EnvVarSource, objects: ObjectReader) -> str | None:
    selector: KeySelector | None = source.config_map_key_ref or source.secret_key_ref
    if selector is None:
        return ""
    kind, title = ("configmap", "ConfigMap") if source.config_map_key_ref else ("secret", "Secret")
    data = await _data(kind, pod.metadata.namespace, selector.name, objects)
    if data is not None and selector.key in data:
        return _text(data[selector.key], kind, selector.name, selector.key)
    if selector.optional:
        return None
    if data is None:
        raise CreateContainerConfigError(f'{kind} "{selector.name}" not found')
    raise CreateContainerConfigError(
        f"couldn't find key {selector.key} in {title} {pod.metadata.namespace}/{selector.name}"
    )


async def _data(kind: str, namespace: str, name: str, objects: ObjectReader) -> dict[str, bytes] | None:
    return await (config_map_data if kind == "configmap" else secret_data)(objects, namespace, name)


def _text(value: bytes, kind: str, name: str, key: str) -> str:
    """An environment variable is text without NUL: the kernel ends a string there."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise CreateContainerConfigError(f'key {key} of {kind} "{name}" is not UTF-8 text') from error
    if "\0" in text:
        raise CreateContainerConfigError(f'key {key} of {kind} "{name}" holds a NUL byte')
    return text
