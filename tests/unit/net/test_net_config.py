from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import InvalidError, UnsupportedError
from cuboid.net.cni.config import default_list, load_list, parse_list
from cuboid.net.cni.runtime import CniRuntime, plugin_config
from cuboid.net.settings import NetSettings

LIST: dict[str, Any] = {"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}


def parse(**changes: Any) -> Any:
    return parse_list(json.dumps({**LIST, **changes}).encode(), "x.conflist")


def test_the_built_in_network_is_a_valid_chain_of_debians_plugins() -> None:
    network = default_list(NetSettings(), Path("/ipam"))
    assert network.types() == ["bridge"]
    assert network.plugins[0]["ipam"]["ranges"] == [[{"subnet": "10.77.0.0/16"}]]
    assert "mtu" not in network.plugins[0]


def test_settings_shape_the_built_in_network() -> None:
    bridge = default_list(NetSettings(subnet_v6="fd77::/64", mtu=1450, bridge="b0"), Path("/ipam")).plugins[0]
    assert (bridge["bridge"], bridge["mtu"]) == ("b0", 1450)
    assert [route["dst"] for route in bridge["ipam"]["routes"]] == ["0.0.0.0/0", "::/0"]


def test_a_subnet_that_is_none_is_refused() -> None:
    for subnet in ("10.77.0.1/16", "x", ""):
        with pytest.raises(InvalidError, match="subnet"):
            default_list(NetSettings(subnet=subnet), Path("/ipam"))


def test_the_first_configuration_in_the_folder_wins(tmp_path: Path) -> None:
    settings = NetSettings(config_folder=str(tmp_path))
    assert load_list(settings, tmp_path).name == "cuboid"
    (tmp_path / "20-b.conflist").write_text(json.dumps({**LIST, "name": "b"}))
    (tmp_path / "10-a.conf").write_text(json.dumps({"cniVersion": "0.4.0", "name": "a", "type": "ptp"}))
    (tmp_path / "00-readme.txt").write_text("not a configuration")
    found = load_list(settings, tmp_path)
    assert (found.name, found.version, found.types()) == ("a", "0.4.0", ["ptp"])


def test_the_newest_known_version_on_offer_is_taken() -> None:
    assert parse(cniVersions=["0.4.0", "1.1.0", "7.0.0"]).version == "1.1.0"
    assert parse().at_least("0.4.0")
    assert not parse().at_least("1.1.0")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "a/b"},
        {"name": 3},
        {"cniVersion": "0.2.0"},
        {"plugins": []},
        {"plugins": {}},
        {"plugins": [{"type": "../../bin/sh"}]},
        {"plugins": [{}]},
        {"plugins": [{"type": "a"}] * 33},
    ],
)
def test_a_wrong_list_is_refused_by_the_name_of_its_file(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match=r"x\.conflist"):
        parse(**changes)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_a_list(data: bytes) -> None:
    with pytest.raises(InvalidError):
        parse_list(data, "x.conflist")


def test_only_declared_capabilities_reach_a_plugin() -> None:
    network = parse(plugins=[{"type": "portmap", "capabilities": {"portMappings": True, "mac": False}}, {"type": "x"}])
    offered = (("portMappings", [1]), ("mac", "m"))
    first, second = (plugin_config(network, plugin, offered, {"cniVersion": "0.4.0"}) for plugin in network.plugins)
    assert first == {
        "type": "portmap",
        "cniVersion": "1.0.0",
        "name": "n",
        "runtimeConfig": {"portMappings": [1]},
        "prevResult": {"cniVersion": "1.0.0"},
    }
    assert "runtimeConfig" not in second


def test_a_plugin_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    runtime = CniRuntime((str(tmp_path / "a"), str(tmp_path / "b")), deadline=1)
    (tmp_path / "b" / "bridge").touch(mode=0o755)
    (tmp_path / "a" / "bridge").touch(mode=0o644)  # not executable
    assert runtime.find("bridge") == str(tmp_path / "b" / "bridge")
    with pytest.raises(UnsupportedError, match="containernetworking-plugins"):
        runtime.find("absent")
