"""A kubeconfig's current context becomes a client; what can not be used is said in one sentence."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from cuboid.kube import kubeconfig
from cuboid.lib.errors import InvalidError, NotFoundError

Object = dict[str, Any]
AUTHORITY = "-----BEGIN CERTIFICATE-----\n"


def config(user: Object, cluster: Object | None = None) -> Object:
    return {
        "current-context": "two",
        "contexts": [
            {"name": "one", "context": {"cluster": "missing", "user": "missing"}},
            {"name": "two", "context": {"cluster": "c", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://api.example:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user}],
    }


def written(folder: Path, content: Any) -> Path:
    path = folder / "config"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_the_current_context_counts(tmp_path: Path) -> None:
    data = base64.b64encode(AUTHORITY.encode()).decode()
    path = written(tmp_path, config({"token": "secret"}, {"certificate-authority-data": data}))
    access = kubeconfig.load(path)
    assert (access.server, access.token, access.authority) == ("https://api.example:6443", "secret", AUTHORITY)
    assert "secret" not in repr(access)


def test_files_are_looked_for_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(AUTHORITY)
    (tmp_path / "token").write_text("secret\n")
    path = written(tmp_path, config({"tokenFile": "token"}, {"certificate-authority": "ca.crt"}))
    access = kubeconfig.load(path)
    assert (access.token, access.authority) == ("secret", AUTHORITY)


def test_a_program_for_credentials_is_refused_with_the_way_out(tmp_path: Path) -> None:
    path = written(tmp_path, config({"exec": {"command": "login"}}))
    with pytest.raises(InvalidError, match=r"gets its credentials from a program.*ServiceAccount"):
        kubeconfig.load(path)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "a: {", "current-context: x", {**config({}), "users": []}, {**config({}), "clusters": [{"name": "c"}]}],
)
def test_what_is_no_kubeconfig_is_said(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InvalidError, match="is not a usable kubeconfig"):
        kubeconfig.load(written(tmp_path, content))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere does not exist"):
        kubeconfig.load(tmp_path / "nowhere")
    path = written(tmp_path, config({}, {"certificate-authority": "gone.crt"}))
    with pytest.raises(NotFoundError, match=r"gone\.crt does not exist"):
        kubeconfig.load(path)


def test_an_authority_that_is_none_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, config({"token": "t"}, {"certificate-authority-data": base64.b64encode(b"x").decode()}))
    with pytest.raises(InvalidError, match="certificate"):
        kubeconfig.client(kubeconfig.load(path))
