"""One question, answered: from the zone, or by asking the host's resolvers. Questions are hostile input.

Messages are read and written by dnspython.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Sequence
from contextlib import suppress

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.reversename
import dns.rrset

from cuboid.lib.log import get_log
from cuboid.server.dns.directory import CacheDirectory
from cuboid.server.dns.zone import TTL, Found, Record, Zone

log = get_log(__name__)

KNOW_SECONDS = 2.0
"""How long a question of an address that is no pod's yet waits for it to become one."""
UPSTREAM_SECONDS = 2.0
"""For one of the host's resolvers; then the next one is asked."""
UDP_BYTES = 1232
"""Largest answer over UDP, if the asker takes as much (the value agreed on in 2020's "DNS flag day")."""


class Resolver:
    """`upstreams` are addresses of the host's resolvers."""

    def __init__(self, directory: CacheDirectory, domain: str, upstreams: Sequence[str], port: int = 53) -> None:
        self._directory = directory
        self._zone = Zone(directory, domain)
        self._origin = dns.name.from_text(domain)
        self._upstreams = tuple(upstreams)
        self._port = port
        self._own: dict[str, bool] = {}  # whether an address is this host's

    async def answer(self, wire: bytes, asker: str, *, tcp: bool) -> bytes | None:
        """None for what is no question, which gets no answer."""
        try:
            query = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError, IndexError):
            return None
        if query.flags & dns.flags.QR:
            return None
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            return self._wire(_refused(query, dns.rcode.NOTIMP), query, tcp=tcp)
        return self._wire(await self._answered(query, asker, tcp=tcp), query, tcp=tcp)

    async def _answered(self, query: dns.message.Message, asker: str, *, tcp: bool) -> dns.message.Message:
        question = query.question[0]
        if question.rdclass != dns.rdataclass.IN:
            return _refused(query, dns.rcode.REFUSED)
        name = question.name.to_text(omit_final_dot=True).lower()
        inside = self._zone.holds(name)
        address = _reversed(question)
        if inside or address:
            known, visible = await self._visible(asker)
            if not known:
                return _refused(query, dns.rcode.SERVFAIL)
            type_ = dns.rdatatype.to_text(question.rdtype)
            found = self._zone.find(name, type_, visible) if inside else self._zone.reverse(address, name, visible)
            if inside or found.exists:
                return self._local(query, found)
        return await self._forwarded(query, tcp=tcp)

    async def _visible(self, asker: str) -> tuple[bool, Collection[str] | None]:
        """Whether it is known who asks, and what they may know."""
        if self._directory.knows(asker) or (
            not self._is_own(asker) and await self._directory.wait_for(asker, KNOW_SECONDS)
        ):
            return True, self._directory.visible(asker)
        return self._is_own(asker), None

    def _is_own(self, address: str) -> bool:
        if address not in self._own:
            if len(self._own) > 1000:
                self._own.clear()
            self._own[address] = _bindable(address)
        return self._own[address]

    def _local(self, query: dns.message.Message, found: Found) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        response.flags |= dns.flags.AA
        if not found.exists:
            response.set_rcode(dns.rcode.NXDOMAIN)
        for record in random.sample(found.records, len(found.records)):
            _add(response.answer, record)
        for record in found.extra:
            _add(response.additional, record)
        if not found.records:
            _soa(response, self._origin)
        return response

    async def _forwarded(self, query: dns.message.Message, *, tcp: bool) -> dns.message.Message:
        """The answer of the first of the host's resolvers that gives one."""
        asked = dns.message.make_query(
            query.question[0].name, query.question[0].rdtype, use_edns=0, payload=UDP_BYTES, want_dnssec=query.ednsflags
            & dns.flags.DO != 0,
        )  # fmt: skip
        for upstream in self._upstreams:
            try:
                if tcp:
                    found = await dns.asyncquery.tcp(asked, upstream, timeout=UPSTREAM_SECONDS, port=self._port)
                else:
                    found = await dns.asyncquery.udp(
                        asked, upstream, timeout=UPSTREAM_SECONDS, port=self._port, ignore_unexpected=True
                    )
            except (dns.exception.DNSException, OSError, EOFError) as error:
                log.info("a resolver of the host gave no answer", resolver=upstream, error=type(error).__name__)
                continue
            response = dns.message.make_response(query, recursion_available=True)
            response.set_rcode(found.rcode())
            response.flags |= found.flags & (dns.flags.TC | dns.flags.AD)
            response.answer, response.authority = found.answer, found.authority
            response.additional = found.additional
            return response
        return _refused(query, dns.rcode.SERVFAIL)

    def _wire(self, response: dns.message.Message, query: dns.message.Message, *, tcp: bool) -> bytes:
        limit = 65535 if tcp else min(max(query.payload if query.edns >= 0 else 512, 512), UDP_BYTES)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query, recursion_available=True)
            short.set_rcode(response.rcode())
            short.flags |= dns.flags.TC  # the asker comes again over TCP
            return short.to_wire()


def _reversed(question: dns.rrset.RRset) -> str:
    """The IPv4 address that a PTR question is about, "" for another question."""
    if question.rdtype == dns.rdatatype.PTR:
        with suppress(dns.exception.DNSException, ValueError):
            return str(dns.reversename.to_address(question.name))
    return ""


def _refused(query: dns.message.Message, code: dns.rcode.Rcode) -> dns.message.Message:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(code)
    return response


def _add(section: list[dns.rrset.RRset], record: Record) -> None:
    """Into the set of its name and type."""
    made = dns.rrset.from_text(f"{record.name}.", TTL, "IN", record.type, record.data)
    for known in section:
        if known.name == made.name and known.rdtype == made.rdtype:
            known.add(made[0], TTL)
            return
    section.append(made)


def _soa(response: dns.message.Message, origin: dns.name.Name) -> None:
    """How long "there is none" may be believed."""
    text = f"ns.dns.{origin} hostmaster.{origin} 1 7200 1800 86400 {TTL}"
    response.authority.append(dns.rrset.from_text(origin, TTL, "IN", "SOA", text))


def _bindable(address: str) -> bool:
    """An address that a socket can have is this host's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as test:
        try:
            test.bind((address, 0))
        except OSError:
            return False
    return True
