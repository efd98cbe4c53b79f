"""Writes src/cuboid/server/protobuf.json: field numbers of Kubernetes' protobuf messages, for request bodies.

The source is the crate `k8s-pb`, which carries what Kubernetes' .proto files say. Needs cargo, and is run by hand when
the version of Kubernetes' schemas moves. Names are those of the JSON schemas; a field that these lack is left out.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from cuboid.kube import kinds, schema
from cuboid.server.virtual import VIRTUAL

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "src/cuboid/server/protobuf.json"
CRATE = "k8s-pb"
VERSION = "0.9.0"
EXTRA = {
    "v1/DeleteOptions": "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "policy/v1/Eviction": "io.k8s.api.policy.v1.Eviction",
    "v1/Binding": "io.k8s.api.core.v1.Binding",
    "autoscaling/v1/Scale": "io.k8s.api.autoscaling.v1.Scale",
    "authentication.k8s.io/v1/TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
}
_FIELD = re.compile(r"#\[prost\(([^)]*)\)\]\s*pub (?:r#)?(\w+):\s*(.+?),\n(?=\s*(?:///|#\[|\Z))", re.S)
_SCALARS = ("string", "bytes", "bool", "int32", "int64", "double", "uint32", "uint64")
Field = tuple[int, str, str, bool]  # number, name, type, repeated


def fetched() -> Path:
    """The crate's sources, by cargo."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = (
            f'[package]\nname = "x"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n{CRATE} = "={VERSION}"\n'
        )
        (folder / "Cargo.toml").write_text(manifest)
        (folder / "src").mkdir()
        (folder / "src/lib.rs").touch()
        command = ["cargo", "metadata", "--format-version", "1", "--manifest-path", f"{folder}/Cargo.toml"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=300).stdout)
    package = next(item for item in found["packages"] if item["name"] == CRATE)
    return Path(package["manifest_path"]).parent / "src"


def definition(path: tuple[str, ...], name: str) -> str:
    """`api::core::v1` and `Pod` as the schemas name it."""
    return ".".join(("io.k8s", *path, name)).replace("apiextensions_apiserver", "apiextensions-apiserver")


def plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def messages(source: Path) -> dict[str, list[Field]]:
    found: dict[str, list[Field]] = {}
    for file in sorted(source.rglob("mod.rs")):
        path = file.parent.relative_to(source).parts
        for block in re.split(r"^(?=pub struct )", file.read_text(), flags=re.M)[1:]:
            name = re.match(r"pub struct (\w+)", block)
            assert name is not None
            body = block[: block.index("\n}") + 1] if "\n}" in block else block
            found[definition(path, name[1])] = [_field(path, *item) for item in _FIELD.findall(body)]
    return found


def _field(path: tuple[str, ...], attributes: str, name: str, rust: str) -> Field:
    number = re.search(r'tag = "(\d+)"', attributes)
    assert number is not None, attributes
    parts = [part.strip() for part in attributes.split(",")]
    kind = parts[0].partition(" = ")[0]
    if kind == "btree_map":
        inner = re.search(r'"(\w+), (\w+)', attributes)
        assert inner is not None
        kind = "map:" + (_message(path, rust) if inner[2] == "message" else inner[2])
    elif kind == "message":
        kind = _message(path, rust)
    elif kind == "bytes":
        kind = "bytes"
    return int(number[1]), name, kind, "repeated" in parts


def _message(path: tuple[str, ...], rust: str) -> str:
    """The message that a Rust type names, relative to its module."""
    inner = re.findall(r"[\w:]+", rust)
    name = next(part for part in reversed(inner) if part not in ("String", "alloc", "prost"))
    steps = [step for step in name.split("::") if step]
    while steps[0] == "super":
        path, steps = path[:-1], steps[1:]
    return definition((*path, *steps[:-1]), steps[-1])


def wanted() -> dict[str, str]:
    found = dict(EXTRA)
    for kind in kinds.KINDS:
        if kind.definition:
            found[f"{kind.api_version}/{kind.kind}"] = kind.definition
    for row in VIRTUAL:
        if row.definition:
            found[f"{row.group}/{row.version}/{row.kind}"] = row.definition
    return found


def _inlined(kind: str, owner: dict[str, str], known: dict[str, list[Field]]) -> bool:
    """Whether the fields of a message are fields of its owner in JSON: its name is then left empty."""
    inner = known.get(kind, [])
    return bool(inner) and all(plain(name) in owner for _, name, _, _ in inner)


def main() -> int:
    known, raw = messages(fetched()), schema.definitions()
    cased = {name.lower(): name for name in raw}  # the crate has TcpSocketAction, the schemas TCPSocketAction
    known = {cased.get(name.lower(), name): fields for name, fields in known.items()}
    roots = {name: target for name, target in sorted(wanted().items()) if target in known}
    waiting, made = [(name, name) for name in roots.values()], dict[str, dict[str, list[object]]]()
    while waiting:
        name, source = waiting.pop()
        if name in made:
            continue
        properties = {plain(key): key for key in raw.get(source, {}).get("properties", {})}
        made[name] = {}
        for number, field, kind, repeated in known.get(name, []):
            json_name = properties.get(plain(field), "" if properties else field)
            if json_name or _inlined(kind, properties, known):
                prefix, _, target = kind.rpartition(":")
                target = cased.get(target.lower(), target)
                made[name][str(number)] = [json_name, f"{prefix}:{target}".lstrip(":"), *([1] if repeated else [])]
                if target not in _SCALARS:
                    waiting.append((target, target if target in raw else source))
    document = {"kinds": roots, "messages": dict(sorted(made.items()))}
    TARGET.write_text(json.dumps(document, separators=(",", ":")).replace('},"io.', '},\n"io.') + "\n")
    missing = sorted(set(wanted()) - set(roots))
    print(f"{TARGET.name}: {len(made)} messages, {TARGET.stat().st_size} bytes; not in the crate: {missing}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
