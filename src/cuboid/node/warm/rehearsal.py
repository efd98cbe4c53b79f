"""What a waiting machine does once before it waits: the start of a tiny pod, so that all code of a start has run.

The program writes a line and ends: 150 bytes, made here like the probe's, for no tenant's image may be in a machine
before its own.
"""

from __future__ import annotations

import functools
import os
import struct
import tempfile
from pathlib import Path

from cuboid.guest import agent_pb2 as pb
from cuboid.images.tiny import write_tiny
from cuboid.lib.paths import write_atomic
from cuboid.net.base import Attachment
from cuboid.node import spec
from cuboid.node.warm.shape import read_only_serial, writable_serial
from cuboid.vmm.probe import static_program

NAME, IMAGE, PROGRAM = "rehearsal", "rehearsal", "/bin/rehearse"
TEXT = b"rehearsed\n"
DISK_BYTES = 64 << 20  # sparse
ENTROPY = 32


def program() -> bytes:
    """write(1, TEXT), then exit(0)."""
    head = (
        b"\xbf\x01\x00\x00\x00"  # mov edi, 1
        + b"\x48\x8d\x35" + struct.pack("<i", 22)  # lea rsi, [rip + 22]: the text behind the code
        + b"\xba" + struct.pack("<I", len(TEXT))  # mov edx, length
        + b"\xb8\x01\x00\x00\x00\x0f\x05"  # mov eax, SYS_write; syscall
        + b"\x31\xff\xb8\xe7\x00\x00\x00\x0f\x05"  # xor edi, edi; mov eax, SYS_exit_group; syscall
        + b"\x90"
    )  # fmt: skip
    return static_program(head + TEXT)


def make_image(path: Path) -> Path:
    """The EROFS device that the rehearsal runs from, made again if it is not as it should be: it is tiny."""
    wanted = _image()
    if not path.exists() or path.read_bytes() != wanted:
        write_atomic(path, wanted, mode=0o600, durable=False)
    return path


@functools.cache
def _image() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "image")
        write_tiny(made, {PROGRAM: program()})
        return made.read_bytes()


def call(attachment: Attachment, now: float) -> pb.Rehearse:
    """As real as a start gets: network, image, writable device, and a container with the default restrictions."""
    setup = pb.Setup(
        hostname=NAME, interfaces=[spec.interface(attachment, restored=True)],
        images=[pb.Device(name=IMAGE, serial=read_only_serial(0))],
        writable=pb.Device(name="writable", serial=writable_serial(0)),
        now_unix_ns=int(now * 1e9), entropy=os.urandom(ENTROPY), pod_ip=attachment.ip,
    )  # fmt: skip
    start = pb.StartContainer(
        name=NAME, image=IMAGE, args=[PROGRAM], env=["PATH=/bin"], resources=pb.Resources(memory_bytes=16 << 20)
    )
    return pb.Rehearse(setup=setup, start=start)
