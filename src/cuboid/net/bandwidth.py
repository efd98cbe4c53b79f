"""Kubernetes' own annotations for a pod's bandwidth, and the token bucket that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cuboid.kube import quantity
from cuboid.lib.errors import InvalidError
from cuboid.net.base import Bandwidth

INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"
MIN_BITS, MAX_BITS = 10**3, 10**15  # per second; Kubernetes' own bounds (pkg/util/bandwidth)
_BURST_SECONDS, _QUEUE_SECONDS = 0.025, 0.05
_LEAST_BURST = 128 << 10  # bytes: two of the largest frames (64 KiB) that a guest's segmentation offload hands over
_MOST = (1 << 31) - 1  # bytes


@dataclass(frozen=True)
class Bucket:
    """`rate`: bytes/s. `burst`: bytes that may go at once after silence. `queue`: bytes that wait; more are dropped."""

    rate: int
    burst: int
    queue: int


def of_annotations(annotations: Mapping[str, str]) -> Bandwidth:
    """What a pod's annotations ask for. InvalidError names the annotation."""
    return Bandwidth(_bits(annotations, INGRESS), _bits(annotations, EGRESS))


def _bits(annotations: Mapping[str, str], name: str) -> int:
    text = annotations.get(name)
    if text is None:
        return 0
    try:
        value = quantity.parse(text)
    except InvalidError as error:
        raise InvalidError(f"the annotation {name}: {error.message}", hint="write it as 10M, in bits/s") from error
    if not MIN_BITS <= value <= MAX_BITS:
        raise InvalidError(
            f"the annotation {name} is {text[:64]}, not within 1k and 1P", hint="write it as 10M, in bits/s"
        )
    return int(value)


def bucket(bits: int) -> Bucket:
    """The token bucket for so many bits/s."""
    rate = max(bits // 8, 1)
    burst = min(max(int(rate * _BURST_SECONDS), _LEAST_BURST), _MOST)
    return Bucket(rate, burst, min(max(int(rate * _QUEUE_SECONDS), 2 * _LEAST_BURST), _MOST))
