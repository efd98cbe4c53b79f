"""A host and guests for network tests, made of network namespaces: nothing touches the machine's own network.

`HostNet` is the host: a namespace with its loopback up, joined to an "outside" one by a veth pair. `Guest` stands in
for a VM: a namespace with a tap of its own whose frames are carried to and from the pod's tap, as a VMM does it, so
that the guest's side is a complete kernel with the address, MAC and routes of the attachment.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from cuboid.lib.linux import netns, tap
from cuboid.net.base import Attachment
from cuboid.net.network import CniNetwork
from cuboid.net.settings import NetSettings

HOST_IP = "10.99.0.2"
OUTSIDE_IP = "10.99.0.1"
_TIMEOUT = 10


def missing() -> str:
    """Why network tests cannot run here; "" if they can."""
    if os.geteuid() != 0:
        return "network tests need root"
    if not Path("/dev/net/tun").exists():
        return "network tests need /dev/net/tun"
    return "" if Path("/usr/lib/cni/bridge").exists() else "network tests need containernetworking-plugins"


def inside(namespace: Path, *command: str, stdin: str = "") -> str:
    """Run a command in a namespace; its output."""
    done = subprocess.run(
        ["nsenter", f"--net={namespace}", "--", *command],
        input=stdin, capture_output=True, text=True, timeout=_TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def configure(namespace: Path, *lines: str) -> None:
    inside(namespace, "ip", "-batch", "-", stdin="".join(f"{line}\n" for line in lines))


class Who(TypedDict):
    """A pod's names, to be given to `attach` as `**who`."""

    namespace: str
    name: str


@dataclass
class HostNet:
    """`root` has the state, run and claims folders of the networks that tests make on this host."""

    root: Path
    netns: Path
    outside: Path

    def network(self, name: str = "a", **settings: Any) -> CniNetwork:
        """A CniNetwork on this host; another name is another platform on the same host."""
        chosen = {"config_folder": str(self.root / "cni.d"), **settings}
        root = self.root / name
        return CniNetwork(
            root / "state", root / "run", NetSettings(**chosen),
            host_netns=self.netns, claims=self.root / "claims",
        )  # fmt: skip

    def rules(self) -> str:
        """Rules that belong to single pods (those that all pods share stay)."""
        lines = inside(self.netns, "iptables-save").splitlines()
        return "\n".join([*(line for line in lines if "10.77." in line or "CNI-DN-" in line), *self.published()])

    def published(self) -> list[str]:
        """Ports that lead to pods, as the maps of the host's rules have them."""
        found = json.loads(inside(self.netns, "nft", "-j", "list", "ruleset"))["nftables"]
        maps = (entry["map"] for entry in found if "map" in entry)
        return [json.dumps(element) for each in maps for element in each.get("elem", [])]

    def veths(self) -> list[str]:
        links = json.loads(inside(self.netns, "ip", "-j", "link", "show", "type", "veth"))
        return [link["ifname"] for link in links if link["ifname"] != "uplink"]

    def addresses(self, name: str = "a") -> list[str]:
        """Addresses that host-local holds."""
        folder = self.root / name / "state" / "net" / "ipam" / "cuboid"
        return sorted(path.name for path in folder.glob("10.*")) if folder.is_dir() else []

    def leftovers(self, name: str = "a") -> list[str]:
        """All that a network without pods must not have."""
        run = self.root / name / "run"
        records = self.root / name / "state" / "net" / "records"
        folders = (run / "netns", run / "net", run / "net-records", records, self.root / "claims")
        files = [str(path) for folder in folders for path in folder.glob("*")]
        return [*files, *self.veths(), *self.addresses(name), *self.rules().splitlines()]


@asynccontextmanager
async def host_net(root: Path) -> AsyncIterator[HostNet]:
    """A host; at the end every namespace below `root` is gone."""
    host = HostNet(root, root / "host-ns" / "host", root / "host-ns" / "outside")
    try:
        for path in (host.netns, host.outside):
            await netns.create(path)
        configure(host.netns, "link set lo up", "link add uplink type veth peer name host")
        inside(host.netns, "ip", "link", "set", "host", "netns", str(host.outside))
        configure(host.netns, f"addr add {HOST_IP}/24 dev uplink", "link set uplink up")
        configure(host.outside, "link set lo up", f"addr add {OUTSIDE_IP}/24 dev host", "link set host up")
        yield host
    finally:
        for path in [*root.glob("*/run/netns/*"), *root.glob("*-ns/*")]:
            netns.remove(path)


class Guest:
    """Made by `guest_of`. `socket` gives sockets that live in the guest and are used from the test."""

    def __init__(self, namespace: Path, ip: str) -> None:
        self.netns = namespace
        self.ip = ip

    async def socket(self, make: Callable[[], socket.socket]) -> socket.socket:
        return await netns.run_in(self.netns, make)


@asynccontextmanager
async def guest_of(attachment: Attachment, folder: Path) -> AsyncIterator[Guest]:
    """A guest on the attachment's tap, configured as the guest agent does it from the attachment alone."""
    namespace = folder / f"{attachment.pod_uid}-ns" / "guest"
    await netns.create(namespace)
    ours = await netns.run_in(namespace, lambda: tap.open_tap("eth0"))
    theirs = await netns.run_in(attachment.netns, lambda: tap.open_tap(attachment.tap))
    stop, stopped = os.pipe()
    pump = threading.Thread(target=_pump, args=(ours, theirs, stop), daemon=True)
    try:
        configure(
            namespace,
            "link set lo up",
            f"link set eth0 address {attachment.mac} mtu {attachment.mtu}",
            *(f"addr add {address} dev eth0{' nodad' if ':' in address else ''}" for address in attachment.addresses),
            "link set eth0 up",
            *(f"route add {route.destination} via {route.gateway}" for route in attachment.routes),
        )
        pump.start()
        yield Guest(namespace, attachment.ip)
    finally:
        os.close(stopped)
        pump.join(5)
        for descriptor in (ours, theirs, stop):
            os.close(descriptor)
        netns.remove(namespace)


def _pump(one: int, other: int, stop: int) -> None:
    """Carry frames, virtio-net header included, until the other end of `stop` is closed."""
    while True:
        ready, _, _ = select.select([one, other, stop], [], [])
        if stop in ready:
            return
        for source in ready:
            try:
                os.write(other if source == one else one, os.read(source, 70000))
            except OSError:  # a tap that is down, or a frame too many: lost, as on a wire
                continue


def listener(port: int, *, address: str = "0.0.0.0") -> Callable[[], socket.socket]:
    def make() -> socket.socket:
        made = socket.create_server((address, port))
        made.settimeout(_TIMEOUT)
        return made

    return make


def connection(address: str, port: int, *, timeout: float = 5.0) -> Callable[[], socket.socket]:
    return lambda: socket.create_connection((address, port), timeout=timeout)


def udp(port: int = 0) -> Callable[[], socket.socket]:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(_TIMEOUT)
        made.bind(("0.0.0.0", port))
        return made

    return make


VERSION = """echo '{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]}'"""


def plugin(host: HostNet, name: str, *, add: str, delete: str = "exit 0") -> None:
    """A plugin in sh. It notes each command in `<name>.log`."""
    folder = host.root / "plugins"
    folder.mkdir(exist_ok=True)
    path = folder / name
    log = f"{folder}/{name}.log"
    path.write_text(
        f'#!/bin/sh\necho "$CNI_COMMAND $CNI_CONTAINERID" >>{log}\n'
        f'cat >{folder}/{name}.stdin\ncase "$CNI_COMMAND" in ADD) {add};; DEL) {delete};; VERSION) {VERSION};; esac\n'
    )
    path.chmod(0o755)


def calls(host: HostNet, name: str) -> list[str]:
    log = host.root / "plugins" / f"{name}.log"
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


PASS_ON = 'sed "s/.*\\"prevResult\\": *//; s/}$//" $0.stdin'


async def kill_when(host: HostNet, marker: str, name: str, script: str, *arguments: str) -> None:
    """Run a script in a process of its own and kill -9 it once the plugin `name` has noted `marker`."""
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}:{Path.cwd() / 'src'}"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *arguments, env=environment)
    async with asyncio.timeout(20):
        while marker not in calls(host, name):
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    await process.wait()
