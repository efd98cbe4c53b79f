"""The image of nginx with another page: what a user pushes as the next version of a site."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from cuboid.images.manifest import OCI_LAYER
from tests.harness.images import make_tar
from tools import debian_images

PAGE_FILE = "var/www/html/index.html"


def with_page(text: str, folder: Path) -> Path:
    """An OCI layout below `folder`: nginx, and a layer on top of it that holds the page."""
    layout = folder / "layout"
    shutil.copytree(debian_images.layout("nginx"), layout)
    index = json.loads((layout / "index.json").read_bytes())
    manifest = json.loads(_blob(layout, index["manifests"][0]["digest"]).read_bytes())
    config = json.loads(_blob(layout, manifest["config"]["digest"]).read_bytes())
    layer = make_tar([(PAGE_FILE, text.encode())])
    digest, size = _add(layout, layer)
    config["rootfs"]["diff_ids"].append(digest)
    manifest["layers"].append({"mediaType": OCI_LAYER, "digest": digest, "size": size})
    manifest["config"]["digest"], manifest["config"]["size"] = _add(layout, json.dumps(config).encode())
    index["manifests"][0]["digest"], index["manifests"][0]["size"] = _add(layout, json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps(index))
    return layout


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs/sha256" / digest.partition(":")[2]


def _add(layout: Path, data: bytes) -> tuple[str, int]:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _blob(layout, digest).write_bytes(data)
    return digest, len(data)
