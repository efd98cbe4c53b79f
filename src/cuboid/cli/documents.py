"""Objects of files: YAML or JSON, several in one file, files of a folder, or what stdin has."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cuboid.lib.errors import InvalidError

Object = dict[str, Any]
_SUFFIXES = (".yaml", ".yml", ".json")
_LARGEST = 64 << 20  # bytes of one file
_MOST_VALUES = 1_000_000
_DEEPEST = 200
_FIRST = ("Namespace", "CustomResourceDefinition")  # others may be in the one, or of the other


class Document(NamedTuple):
    """`where` names it for people, as `web.yaml, document 2`."""

    where: str
    object: Object


def read(names: Iterable[str]) -> list[Document]:
    """What is to be there before others comes first; else the order is that of the files. InvalidError."""
    found = [document for name in names for document in _of(name)]
    if not found:
        raise InvalidError("there is no object in what was given", hint="-f FILE, a folder of *.yaml, or - for stdin")
    return sorted(found, key=lambda row: row.object["kind"] not in _FIRST)


def _of(name: str) -> Iterator[Document]:
    if name == "-":
        yield from parse("stdin", sys.stdin.read(_LARGEST))
        return
    path = Path(name)
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
        if not files:
            raise InvalidError(f"{name}: no *.yaml, *.yml or *.json in this folder")
    for file in files:
        yield from parse(str(file), _text(file))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise InvalidError(f"{path} is larger than {_LARGEST >> 20} MiB")
        return path.read_text()
    except UnicodeDecodeError as error:
        raise InvalidError(f"{path} is no text: {error}") from error
    except OSError as error:
        raise InvalidError(f"{path}: {error.strerror}") from error


def parse(where: str, text: str) -> Iterator[Document]:
    """Each object, those of a List too."""
    import yaml

    try:
        contents = list(yaml.load_all(text, Loader=_loader()))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidError(f"{where} is neither YAML nor JSON: {' '.join(str(error).split())}") from error
    for number, content in enumerate(contents, 1):
        if content is not None:
            place = f"{where}, document {number}" if len(contents) > 1 else where
            yield from _objects(place, _Plain(place).of(content))


class _Plain:
    """A value as JSON has it. YAML has more: sets, bytes, values that hold themselves, or grow with each reference."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = _MOST_VALUES

    def of(self, value: Any, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise InvalidError(f"{self._where} holds too much, or itself", hint="without YAML's anchors (&x, *x)")
        if isinstance(value, dict):
            return {self._key(key): self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.of(item, depth + 1) for item in value]
        if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        raise InvalidError(f"{self._where}: {str(value)[:40]!r} can not be said in JSON ({type(value).__name__})")

    def _key(self, key: Any) -> str:
        if isinstance(key, bool):
            return str(key).lower()
        if isinstance(key, str | int):
            return str(key)
        raise InvalidError(f"{self._where}: {str(key)[:40]!r} is no name of a field")


def _loader() -> Any:
    """Times stay the text that they are, a field that is there twice is refused; the fast parser where there is one."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    resolvers = {
        letter: [row for row in rows if row[0] != "tag:yaml.org,2002:timestamp"]
        for letter, rows in base.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self: Any, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen |= {key.value} if isinstance(key.value, str) else set()
        return base.construct_mapping(self, node, deep=deep)

    return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers, "construct_mapping": construct_mapping})


def _objects(where: str, content: Any) -> Iterator[Document]:
    if not isinstance(content, dict):
        raise InvalidError(f"{where} is no object: it has no apiVersion and no kind")
    missing = [key for key in ("apiVersion", "kind") if not isinstance(content.get(key), str) or not content[key]]
    if missing:
        raise InvalidError(
            f"{where}: {' and '.join(missing)} missing", hint="like apiVersion: apps/v1, kind: Deployment"
        )
    if content["kind"].endswith("List") and isinstance(content.get("items"), list):
        for number, item in enumerate(content["items"], 1):
            yield from _objects(f"{where}, item {number}", item)
        return
    metadata = content.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise InvalidError(f"{where}: this {content['kind']} has no metadata.name", hint="metadata: {name: …}")
    yield Document(where, content)
