"""`CniNetwork`: the pods' network of one host. A record per pod is written first; all else can be undone from it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

from cuboid.lib.aio import in_thread, uninterrupted
from cuboid.lib.errors import ConflictError, CuboidError, InvalidError, NotFoundError, UnsupportedError
from cuboid.lib.linux import netns
from cuboid.lib.log import get_log
from cuboid.net import dns, guard, neighbours, redirect, rules, wire
from cuboid.net import ports as published
from cuboid.net.addresses import free_unknown
from cuboid.net.base import NO_LIMITS, Attachment, Bandwidth, PortMapping
from cuboid.net.cni.config import NetworkList, configured, default_list, load_list, parse_list
from cuboid.net.cni.result import CniResult, Dns, pod_addresses, pod_routes
from cuboid.net.cni.runtime import CniRuntime, Container
from cuboid.net.locks import PodLocks
from cuboid.net.records import Phase, Record, Records, valid_uid
from cuboid.net.settings import NetSettings

log = get_log(__name__)


class CniNetwork:
    """Implements `cuboid.net.base.Network`.

    `state` and `run` are the roots of `cuboid.lib.paths.Paths`. `host_netns` moves the host's side (bridge, rules,
    plugins) into another network namespace, for tests. `claims` is the folder of published ports.
    """

    def __init__(
        self, state: Path, run: Path, settings: NetSettings, *,
        host_netns: Path | None = None, claims: Path | None = None,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._host = host_netns
        self._ipam = state / "net" / "ipam"
        self._namespaces = run / "netns"
        self._records = Records(state / "net" / "records", run / "net-records")
        self._claims = published.PortClaims(claims or published.claims_folder(host_netns))
        self._locks = PodLocks(run / "net", patience=settings.plugin_deadline)
        self._cni = CniRuntime(settings.plugin_folders, deadline=settings.plugin_deadline, host_netns=host_netns)
        self._slots = asyncio.Semaphore(settings.parallel)
        self._guard = asyncio.Lock()
        self._guarded: bool | None = None  # how `guard.install` was told to by this process

    async def attach(
        self, pod_uid: str, *, namespace: str, name: str, ports: tuple[PortMapping, ...] = (), tap_uid: int = 0,
        limits: Bandwidth = NO_LIMITS,
    ) -> Attachment:  # fmt: skip
        """See `Network.attach`."""
        valid_uid(pod_uid)
        ports = published.validated(ports)
        async with self._slots, self._locks.held(pod_uid) as lock:
            if known := await self._intact(pod_uid, Phase.ATTACHED):
                return known
            network = load_list(self._settings, self._ipam)
            record = Record(
                pod_uid, namespace, name, Phase.ADDING, network.raw, ports, tap_uid,
                limits=limits, builtin=network.builtin,
            )  # fmt: skip
            return await self._anew(record, network, Phase.ATTACHED, lock)

    async def _anew(self, record: Record, network: NetworkList, goal: Phase, lock: int) -> Attachment:
        if old := self._records.get(record.uid):
            await self._undo(old, lock)
        try:
            await self._reserve(record)
            return await self._make(record, network, goal, lock)
        except (CuboidError, OSError, asyncio.CancelledError):
            await uninterrupted(self._undo_quietly(record.uid, lock))
            raise

    async def _intact(self, uid: str, phase: Phase) -> Attachment | None:
        """The attachment if it is whole; after a reboot, or an interrupted attach, it is not."""
        record = self._records.get(uid)
        if record is None or record.phase is not phase or record.attachment is None:
            return None
        try:
            await wire.require_joined(record.attachment.netns)
        except (CuboidError, OSError):
            return None
        return record.attachment

    async def _reserve(self, record: Record) -> None:
        """The record, then the published ports; nothing is left if one of them is taken."""
        await self._write(record)
        try:
            await self._claim(record)
        except CuboidError:
            self._claims.release(record.uid, record.ports)
            self._records.drop(record)
            raise

    async def _claim(self, record: Record) -> None:
        if record.ports:
            path = self._records.path(record)
            self._claims.claim(record.ports, pod_uid=record.uid, pod=record.pod, record=path)
            await netns.run_in(self._host, lambda: published.require_free(record.ports))

    async def _make(self, record: Record, network: NetworkList, goal: Phase, lock: int) -> Attachment:
        path = self._namespaces / record.uid
        await netns.create(path)
        await self._protect(network)

        def remember(result: CniResult) -> None:
            self._records.put(replace(record, result=result.raw), durable=False)

        result = await self._cni.add(network, self._container(record, lock), after_each=remember)
        addresses = pod_addresses(result)
        link = await wire.join(path, addresses, owner=record.tap_uid, quiet=network.builtin)
        if record.limits != NO_LIMITS:
            await wire.limit(path, record.limits)
        if record.builtin:
            await netns.run_in(self._host, lambda: redirect.open_loopback(record.bridge))
        await self._publish(record, addresses)
        attachment = self._attachment(record, path, link, addresses, result)
        await self._write(replace(record, phase=goal, result=result.raw, attachment=attachment))
        return attachment

    async def _publish(self, record: Record, addresses: tuple[str, ...]) -> None:
        """Where no plugin does it."""
        if record.builtin and record.ports:
            args = (record.bridge, record.uid, record.ports, addresses)
            await netns.run_in(self._host, lambda: redirect.publish(*args))

    async def _withdraw(self, record: Record) -> None:
        if record.builtin and record.ports and (addresses := record.addresses):
            await netns.run_in(self._host, lambda: redirect.withdraw(record.bridge, record.ports, addresses))

    async def _write(self, record: Record) -> None:
        """Durably where that counts, and not on the event loop: a slow disk must not hold up other pods."""
        if record.builtin:
            self._records.put(record)
        else:
            await in_thread(lambda: self._records.put(record))

    def _attachment(
        self, record: Record, path: Path, link: wire.Link, addresses: tuple[str, ...], result: CniResult
    ) -> Attachment:
        names = dns.merged(result.dns, self._host_dns())
        return Attachment(
            pod_uid=record.uid,
            netns=path,
            tap=wire.TAP,
            mac=link.mac,
            mtu=link.mtu,
            addresses=addresses,
            routes=pod_routes(result),
            nameservers=names.nameservers,
            search=names.search,
            options=names.options,
            result=result.raw,
        )

    def _host_dns(self) -> Dns:
        return dns.host_dns(self._settings.nameservers)

    def _container(self, record: Record, lock: int | None) -> Container:
        path = self._namespaces / record.uid
        return Container(
            id=record.uid,
            netns=path if netns.exists(path) else None,
            interface=wire.INTERFACE,
            args=(  # what Kubernetes' runtimes pass; third-party plugins look their pod up by it
                ("IgnoreUnknown", "1"),
                ("K8S_POD_NAMESPACE", record.namespace),
                ("K8S_POD_NAME", record.name),
                ("K8S_POD_INFRA_CONTAINER_ID", record.uid),
                ("K8S_POD_UID", record.uid),
            ),
            capabilities=(("portMappings", published.mappings(record.ports)),) if record.ports else (),
            lock=lock,
        )

    async def _protect(self, network: NetworkList) -> None:
        """The rules that all pods share, where the network is the built-in bridge: once, and again if flushed."""
        if not any(plugin.get("bridge") == self._settings.bridge for plugin in network.plugins):
            return
        async with self._guard:
            known = self._guarded is network.builtin
            if not known or not await guard.present(self._settings.bridge, self._host, outward=network.builtin):
                nameservers = self._host_dns().nameservers
                await guard.install(self._settings, nameservers, self._host, outward=network.builtin)
                await self._publish_again()
                self._guarded = network.builtin

    async def _publish_again(self) -> None:
        """The ports of pods that run on, after the maps were lost."""
        for record in self._records.all():
            if record.phase is Phase.ATTACHED:
                try:
                    await self._publish(record, record.addresses)
                except OSError as error:
                    log.error("cannot publish a pod's ports again", pod=record.pod, error=str(error))

    @property
    def prepares(self) -> bool:
        """See `Network.prepares`."""
        return configured(self._settings) is None

    async def prepare(self, slot: str) -> Attachment:
        """See `Network.prepare`. Idempotent per slot; ConflictError when a pod has it already."""
        valid_uid(slot)
        async with self._slots, self._locks.held(slot) as lock:
            if known := await self._intact(slot, Phase.PREPARED):
                return known
            if (record := self._records.get(slot)) and record.phase is Phase.ATTACHED:
                raise ConflictError(f"the network slot {slot} belongs to the pod {record.pod}")
            network = load_list(self._settings, self._ipam)
            if not network.builtin:
                raise UnsupportedError(
                    f"the network {network.name} prepares nothing", hint="its plugins look at the pod's name"
                )
            record = Record(slot, "", "", Phase.ADDING, network.raw, builtin=True)
            return await self._anew(record, network, Phase.PREPARED, lock)

    async def adopt(
        self, slot: str, *, namespace: str, name: str, ports: tuple[PortMapping, ...] = (),
        limits: Bandwidth = NO_LIMITS,
    ) -> Attachment:  # fmt: skip
        """See `Network.adopt`. Waits for no other pod's attachment, and for no disk."""
        valid_uid(slot)
        ports = published.validated(ports)
        async with self._locks.held(slot):
            record, attachment = await self._prepared(slot)
            pod = replace(record, namespace=namespace, name=name, ports=ports, limits=limits, phase=Phase.ATTACHED)
            if ports or limits != NO_LIMITS:
                await self._equip(record, pod, attachment)
            self._records.put(pod, durable=False)  # a reboot ends what it says
            return attachment

    async def _prepared(self, slot: str) -> tuple[Record, Attachment]:
        record = self._records.get(slot)
        if record is None or record.attachment is None or record.phase is not Phase.PREPARED:
            raise NotFoundError(f"there is no prepared network slot {slot}")
        if not await wire.has_tap(record.attachment.netns):
            raise NotFoundError(f"the prepared network slot {slot} is not whole any more")
        return record, record.attachment

    async def _equip(self, slot: Record, pod: Record, attachment: Attachment) -> None:
        """Set the limits and publish the ports. Whatever fails, the slot is as before; if undoing fails as well it is
        nobody's: neither prepared nor attached, so that `adopt` has it no more and `detach` and `clean` undo it."""
        publishing = False
        try:
            self._records.put(replace(pod, phase=Phase.PUBLISHING), durable=False)
            if pod.limits != NO_LIMITS:
                await wire.limit(attachment.netns, pod.limits)
            await self._claim(pod)
            publishing = True
            await self._publish(pod, attachment.addresses)
        except (CuboidError, OSError, asyncio.CancelledError):
            await uninterrupted(self._strip(slot, pod, attachment, publishing=publishing))
            raise

    async def _strip(self, slot: Record, pod: Record, attachment: Attachment, *, publishing: bool) -> None:
        """The inverse of `_equip`. Connections to a port that it did not get are those of who has the port."""
        try:
            if pod.limits != NO_LIMITS:
                await wire.limit(attachment.netns, NO_LIMITS)
            if publishing:
                await self._withdraw(pod)
        except (CuboidError, OSError) as error:
            log.warning("undoing an adoption failed, `clean` will try again", pod=pod.pod, error=str(error))
            return
        self._claims.release(slot.uid, pod.ports)
        self._records.put(slot, durable=False)

    async def hold(self, pod_uid: str, *, frozen: bool) -> None:
        """See `Network.hold`. On a network of others' plugins nothing is done: who knows the pod there is theirs."""
        record = self._records.get(pod_uid)
        if record is None or not record.builtin or (attachment := record.whole) is None:
            return
        bridge, change = record.bridge, neighbours.pin if frozen else neighbours.unpin
        await netns.run_in(self._host, lambda: change(bridge, attachment.addresses, attachment.mac))

    async def detach(self, pod_uid: str) -> None:
        """See `Network.detach`."""
        valid_uid(pod_uid)
        async with self._slots, self._locks.held(pod_uid) as lock:
            if record := self._records.get(pod_uid):
                await self._undo(record, lock)
            else:
                self._forget(pod_uid)

    async def _undo(self, record: Record, lock: int) -> None:
        """DEL, then all that is ours. The record goes last: until then this can be repeated."""
        whole = record.whole is not None and await wire.has_tap(record.whole.netns)
        await self._write(replace(record, phase=Phase.DELETING))
        await self._withdraw(record)
        await self._forget_neighbour(record)
        network = parse_list(json.dumps(record.network).encode(), f"the record of {record.pod}")
        await self._cni.delete(network, self._container(record, lock), record.result)
        if not whole and not record.builtin:
            await rules.forget(network.name, record.uid, guard.iptables(self._settings), self._host)
        self._forget(record.uid, record.ports)
        await in_thread(lambda: self._records.drop(record))

    async def _forget_neighbour(self, record: Record) -> None:
        """It may have been paused when it ended; its address is another pod's soon."""
        if record.builtin and (addresses := record.addresses):
            await netns.run_in(self._host, lambda: neighbours.forget(record.bridge, addresses))

    async def _undo_quietly(self, pod_uid: str, lock: int) -> None:
        """After a failed attach: that failure is what the caller wants to hear."""
        try:
            if record := self._records.get(pod_uid):
                await self._undo(record, lock)
        except (CuboidError, OSError) as error:
            log.warning("undoing an attachment failed, `clean` will try again", pod=pod_uid, error=str(error))

    def _forget(self, pod_uid: str, ports: tuple[PortMapping, ...] | None = None) -> None:
        netns.remove(self._namespaces / pod_uid)
        self._claims.release(pod_uid, ports)

    async def check(self, pod_uid: str) -> None:
        """See `Network.check`. InvalidError if the pod is not attached, else what the broken part says."""
        record = self._records.get(pod_uid)
        if record is None or record.whole is None:
            raise InvalidError(f"the pod {pod_uid} is not attached to a network")
        network = parse_list(json.dumps(record.network).encode(), f"the record of {record.pod}")
        await wire.require_joined(record.whole.netns)
        if record.builtin and record.ports:
            addresses = record.addresses
            await netns.run_in(self._host, lambda: redirect.require(record.bridge, record.ports, addresses))
        await self._cni.check(network, self._container(record, None), record.result or {})

    async def status(self) -> None:
        """Raises if no pod could be attached now: wrong configuration, a plugin missing or saying so."""
        network = load_list(self._settings, self._ipam)
        await self._cni.status(network)

    def attachment(self, pod_uid: str) -> Attachment | None:
        """See `Network.attachment`."""
        record = self._records.get(pod_uid)
        return record.whole if record else None

    def attachments(self) -> dict[str, Attachment]:
        """See `Network.attachments`."""
        return {record.uid: record.whole for record in self._records.all() if record.whole}

    async def clean(self, known: set[str]) -> list[str]:
        """See `Network.clean`. What cannot be undone now is logged and stays recorded for the next time."""
        unknown = sorted(self._everything() - known)
        undone = await asyncio.gather(*(self._cleaned(uid) for uid in unknown))
        network = load_list(self._settings, self._ipam)
        await self._restore_rules(network)
        await in_thread(self._free_addresses)
        await self._cni.gc(network, [(uid, wire.INTERFACE) for uid in sorted(self.attachments())])
        return [uid for uid, done in zip(unknown, undone, strict=True) if done]

    async def _restore_rules(self, network: NetworkList) -> None:
        """For pods that run on: they may have been flushed, or changed by hand, while nobody looked."""
        self._guarded = None
        if self.attachments():
            try:
                await self._protect(network)
            except CuboidError as error:
                log.error("cannot put the pods' rules in place", error=str(error))

    def _free_addresses(self) -> None:
        """Of the built-in network, whose records end with the host."""
        folder = self._ipam / default_list(self._settings, self._ipam).name
        if freed := free_unknown(folder, self._records.knows):
            log.warning("freed addresses of pods that are gone without a record", addresses=freed)

    async def _cleaned(self, pod_uid: str) -> bool:
        try:
            await self.detach(pod_uid)
        except (CuboidError, OSError) as error:
            log.error("cannot clean up after a pod", pod=pod_uid, error=str(error))
            return False
        return True

    def _everything(self) -> set[str]:
        """Every pod of which something may be left."""
        folder = self._namespaces
        mounted = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        claimed = {claim.pod_uid for claim in self._claims.claims() if self._is_ours(claim)}
        return mounted | claimed | {record.uid for record in self._records.all()}

    def _is_ours(self, claim: published.Claim) -> bool:
        return bool(claim.pod_uid) and claim.record in map(str, self._records.paths(claim.pod_uid))

    async def remove_host_rules(self) -> None:
        """Take the guard's rules and the bridge away: for a host whose last pod is gone, left as it was found."""
        await guard.remove(self._settings, self._host)
        self._guarded = None
