"""DNS, ports, rule sets, records: the parts of the network that need no namespace."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuboid.lib.errors import ConflictError, InvalidError
from cuboid.net import dns, guard, ports, wire
from cuboid.net.addresses import free_unknown
from cuboid.net.base import Attachment, Bandwidth, PortMapping, Route
from cuboid.net.cni.result import Dns
from cuboid.net.records import Phase, Record, Records
from cuboid.net.settings import NetSettings


def host_dns(tmp_path: Path, main: str, resolved: str = "", explicit: tuple[str, ...] = ()) -> Dns:
    (tmp_path / "main").write_text(main)
    (tmp_path / "resolved").write_text(resolved)
    return dns.host_dns(explicit, main=tmp_path / "main", resolved=tmp_path / "resolved")


def test_the_hosts_resolvers_are_the_pods(tmp_path: Path) -> None:
    text = (
        "# x\nnameserver 10.0.0.1 ; first\nsearch a.example b.example\noptions ndots:2 trust-ad\nnameserver fd00::1\n"
    )
    assert host_dns(tmp_path, text) == Dns(("10.0.0.1", "fd00::1"), ("a.example", "b.example"), ("ndots:2",))


def test_behind_a_loopback_resolver_its_upstreams_are_used(tmp_path: Path) -> None:
    found = host_dns(tmp_path, "nameserver 127.0.0.53\nsearch lan\n", "nameserver 192.0.2.1\nnameserver fe80::1%eth0\n")
    assert found == Dns(("192.0.2.1",), ("lan",), ())


def test_explicit_nameservers_win_and_must_be_addresses(tmp_path: Path) -> None:
    assert host_dns(tmp_path, "nameserver 10.0.0.1\n", explicit=("192.0.2.9",)).nameservers == ("192.0.2.9",)
    with pytest.raises(InvalidError, match=r"dns\.example"):
        host_dns(tmp_path, "", explicit=("dns.example",))


def test_at_most_three_nameservers_and_no_file_are_fine(tmp_path: Path) -> None:
    text = "".join(f"nameserver 10.0.0.{n}\n" for n in range(1, 9))
    assert len(host_dns(tmp_path, text).nameservers) == 3
    assert dns.host_dns((), main=tmp_path / "absent", resolved=tmp_path / "absent") == Dns()


def test_the_networks_own_resolvers_replace_the_hosts() -> None:
    host = Dns(("10.0.0.1",), ("lan",), ("ndots:2",))
    assert dns.merged(Dns(("10.9.0.53",), ("cluster",)), host) == Dns(("10.9.0.53",), ("cluster",), ())
    assert dns.merged(Dns(), host) == host


@given(st.text(max_size=300))
def test_any_resolv_conf_is_read(text: str) -> None:
    assert all(c.isprintable() for word in dns.parse_resolv_conf(text).nameservers for c in word)


A, B = PortMapping(80, 8080), PortMapping(80, 1, "tcp", "127.0.0.1")


def test_ports_overlap_by_protocol_number_and_address() -> None:
    assert ports.overlap(A, B)
    assert ports.overlap(B, PortMapping(80, 2, "tcp", "::"))
    assert not ports.overlap(B, PortMapping(80, 2, "tcp", "127.0.0.2"))
    assert not ports.overlap(A, PortMapping(80, 2, "udp"))
    assert not ports.overlap(A, PortMapping(81, 2))


def test_only_a_chosen_address_reaches_the_portmap_plugin() -> None:
    assert [sorted(mapping) for mapping in ports.mappings((A, B))] == [
        ["containerPort", "hostPort", "protocol"],
        ["containerPort", "hostIP", "hostPort", "protocol"],
    ]


@pytest.mark.parametrize(
    ("spelling", "one"),
    [
        ("2001:DB8:0::1", "2001:db8::1"),
        ("2001:0db8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7"),
        ("", ""),
        ("0.0.0.0", ""),
        ("::", ""),
        ("0::0", ""),
        ("0:0:0:0:0:0:0:0", ""),
        ("::ffff:0.0.0.0", ""),
    ],
)
def test_an_address_has_one_spelling_once_it_is_validated(spelling: str, one: str) -> None:
    assert ports.validated((PortMapping(53, 5353, "udp", spelling),)) == (PortMapping(53, 5353, "udp", one),)


@pytest.mark.parametrize(
    ("one", "other"), [("2001:DB8:0::1", "2001:db8::1"), ("0::0", "127.0.0.1"), ("::ffff:192.0.2.7", "192.0.2.7")]
)
def test_an_address_in_two_spellings_is_published_twice(one: str, other: str) -> None:
    with pytest.raises(InvalidError, match="80/tcp is published twice"):
        ports.validated((PortMapping(80, 1, "tcp", one), PortMapping(80, 2, "tcp", other)))


def test_an_address_of_one_interface_only_is_refused() -> None:
    """Neither a claim's name nor a map's key has a place for the interface."""
    with pytest.raises(InvalidError, match="without one"):
        ports.validated((PortMapping(80, 80, "tcp", "fe80::1%eth0"),))


@given(st.text(max_size=50))
def test_any_text_as_an_address_is_refused_or_names_a_claim_that_is_found_again(text: str) -> None:
    try:
        (port,) = ports.validated((PortMapping(80, 80, "tcp", text),))
    except InvalidError:
        return
    assert ports.validated((port,)) == (port,)
    assert ports._FILE.fullmatch(f"tcp-80-{port.host_ip or 'any'}")


def claim(claims: ports.PortClaims, tmp_path: Path, uid: str, *wanted: PortMapping) -> None:
    record = tmp_path / f"{uid}.json"
    record.touch()
    claims.claim(wanted, pod_uid=uid, pod=f"default/{uid}", record=record)


def test_claims_are_all_or_none_and_name_who_has_one(tmp_path: Path) -> None:
    claims = ports.PortClaims(tmp_path / "claims")
    claim(claims, tmp_path, "one", A)
    claim(claims, tmp_path, "one", A)
    with pytest.raises(ConflictError, match="default/one"):
        claim(claims, tmp_path, "two", PortMapping(443, 443), B)
    assert [(c.pod_uid, c.port.host_port) for c in claims.claims()] == [("one", 80)]
    claims.release("one")
    claim(claims, tmp_path, "two", PortMapping(443, 443), B)
    assert {c.port.host_ip for c in claims.claims()} == {"", "127.0.0.1"}


def test_a_release_by_port_takes_the_pods_own_claims_only(tmp_path: Path) -> None:
    claims = ports.PortClaims(tmp_path / "claims")
    claim(claims, tmp_path, "one", A, PortMapping(443, 443))
    claim(claims, tmp_path, "two", PortMapping(80, 80, "udp"))
    claims.release("two", (A, PortMapping(443, 443)))
    claims.release("one", ())
    assert len(claims.claims()) == 3
    claims.release("one", (A,))
    assert {(c.pod_uid, c.port.host_port) for c in claims.claims()} == {("one", 443), ("two", 80)}
    claims.release("one")
    assert {c.pod_uid for c in claims.claims()} == {"two"}


def test_a_claim_whose_pod_is_gone_or_that_is_damaged_is_void(tmp_path: Path) -> None:
    claims = ports.PortClaims(tmp_path / "claims")
    claim(claims, tmp_path, "one", A)
    (tmp_path / "one.json").unlink()
    (tmp_path / "claims" / "udp-53-any").write_text("{")
    claim(claims, tmp_path, "two", A, PortMapping(53, 53, "udp"))
    assert {c.pod_uid for c in claims.claims()} == {"two"}


def test_a_listening_process_is_found_and_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = PortMapping(server.getsockname()[1], 80)
        with pytest.raises(ConflictError, match=r"taken by .+ \(pid \d+\)"):
            ports.require_free((port,))
    ports.require_free((port,))


def test_an_address_that_the_host_has_not_is_refused() -> None:
    with pytest.raises(InvalidError, match=r"192\.0\.2\.1"):
        ports.require_free((PortMapping(8080, 80, "tcp", "192.0.2.1"),))


def test_the_taps_rules_name_only_the_pods_own_addresses() -> None:
    text = wire.ruleset("02:00:00:00:00:01", ["10.77.0.2/16"])
    assert text.count("policy drop") == 2
    assert "ip saddr { 10.77.0.2 }" in text
    assert "ip6" not in text
    both = wire.ruleset("02:00:00:00:00:01", ["10.77.0.2/16", "fd77::2/64"])
    assert both.index("nd-router-advert") < both.index("ip6 saddr { fd77::2, fe80::ff:fe00:1 }")


def test_pods_are_masqueraded_by_subnet_and_only_on_the_built_in_network() -> None:
    settings = NetSettings(subnet_v6="fd77::/64")
    text = guard.ruleset(settings, [], outward=True)
    assert [line.strip() for line in text.splitlines() if "masquerade" in line] == [
        "ip saddr 10.77.0.0/16 ip daddr != { 10.77.0.0/16, 224.0.0.0/4 } masquerade",
        "ip6 saddr fd77::/64 ip6 daddr != { fd77::/64, ff00::/8 } masquerade",
    ]
    assert "masquerade" not in guard.ruleset(settings, [], outward=False)
    assert "-i cuboid0" in guard.forward_rules("cuboid0", outward=True)
    assert "-i cuboid0" not in guard.forward_rules("cuboid0", outward=False)


def test_the_guard_opens_the_settings_ports_and_the_resolver_only() -> None:
    text = guard.ruleset(NetSettings(host_ports=("tcp/6443",)), ["10.0.0.53", "fd00::53"], outward=True)
    accepted = [line.strip() for line in text.splitlines() if "dport" in line]
    assert accepted == [
        "tcp dport 6443 accept",
        "ip daddr 10.0.0.53 udp dport 53 accept",
        "ip daddr 10.0.0.53 tcp dport 53 accept",
        "ip6 daddr fd00::53 udp dport 53 accept",
        "ip6 daddr fd00::53 tcp dport 53 accept",
    ]


@pytest.mark.parametrize(
    "settings",
    [
        NetSettings(bridge='x"; flush ruleset'),
        NetSettings(bridge="sixteen-letters-"),
        NetSettings(host_ports=("6443",)),
        NetSettings(host_ports=("tcp/0",)),
        NetSettings(host_ports=("tcp/1 accept; x",)),
        NetSettings(blocked=("169.254.0.0/16; x",)),
    ],
)
def test_a_setting_that_is_no_rule_is_refused(settings: NetSettings) -> None:
    with pytest.raises(InvalidError):
        guard.ruleset(settings, [], outward=True)


@pytest.mark.parametrize("builtin", [False, True])
def test_a_record_is_read_back_as_it_was_written(tmp_path: Path, builtin: bool) -> None:
    records = Records(tmp_path / "state", tmp_path / "run")
    attachment = Attachment("u", Path("/n"), "tap0", "02:00:00:00:00:01", 1500, ("10.0.0.2/16",), (Route("0.0.0.0/0"),))
    record = Record(
        "u", "default", "web", Phase.ATTACHED, {"name": "n"}, (A, B), 7, {"x": 1}, attachment, Bandwidth(1, 2), builtin
    )
    records.put(record)
    assert records.get("u") == record
    assert records.all() == [record]
    assert records.knows("u")
    assert [path.parent.name for path in tmp_path.glob("*/*")] == ["run" if builtin else "state"]
    records.drop(record)
    records.drop(record)
    assert records.all() == []
    assert not any(map(records.knows, ("u", "", "../u")))


def test_a_record_of_an_older_node_agent_is_read_with_defaults(tmp_path: Path) -> None:
    records = Records(tmp_path / "state", tmp_path / "run")
    record = Record("u", "default", "web", Phase.ADDING, {"name": "n"})
    older = {key: value for key, value in record.to_json().items() if key not in ("limits", "builtin")}
    (tmp_path / "state" / "u.json").write_text(json.dumps(older))
    assert records.get("u") == record


def test_a_record_that_another_process_has_changed_or_removed_is_read_again(tmp_path: Path) -> None:
    records, others = (Records(tmp_path / "state", tmp_path / "run") for _ in range(2))
    record = Record("u", "default", "web", Phase.ADDING, {"name": "n"})
    for phase in (Phase.ADDING, Phase.PREPARED, Phase.ATTACHED):
        others.put(replace(record, phase=phase, name=phase.value))
        assert records.get("u") == others.get("u")
        assert records.all() == others.all()
    assert records.get("u") is records.get("u")
    others.drop(record)
    assert records.get("u") is None
    assert records.all() == []


def test_a_damaged_record_is_set_aside(tmp_path: Path) -> None:
    records = Records(tmp_path / "state", tmp_path / "run")
    (tmp_path / "state" / "u.json").write_text('{"uid": "u"}')
    assert records.get("u") is None
    assert [path.name for path in tmp_path.glob("*/*")] == ["u.broken"]


def test_addresses_of_unknown_containers_are_freed_and_no_other_file_is_touched(tmp_path: Path) -> None:
    assert free_unknown(tmp_path / "none", lambda _: False) == []
    for name, content in (
        ("10.77.0.2", "known\r\neth0"),
        ("10.77.0.3", "gone\r\neth0"),
        ("10.77.0.4", ""),
        ("fd77::3", "gone\r\neth0"),
        ("last_reserved_ip.0", "10.77.0.4"),
    ):
        (tmp_path / name).write_text(content)
    assert free_unknown(tmp_path, lambda uid: uid == "known") == ["10.77.0.3", "10.77.0.4", "fd77::3"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.77.0.2", "last_reserved_ip.0", "lock"]


def test_ports_of_two_network_namespaces_are_claimed_apart(tmp_path: Path) -> None:
    other = tmp_path / "netns"
    other.touch()
    assert ports.claims_folder(None) == ports.claims_folder(Path("/proc/self/ns/net"))
    assert ports.claims_folder(other) != ports.claims_folder(None)
