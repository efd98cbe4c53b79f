"""Rows of `networking.k8s.io`: objects that are kept, and acted on by whoever implements them."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.strategy import SpecStrategy, Strategy

ROWS: tuple[Kind, ...] = (
    Kind(
        "networking.k8s.io",
        "v1",
        "Ingress",
        "ingresses",
        True,
        "io.k8s.api.networking.v1.Ingress",
        SpecStrategy(),
        c.PLAIN,
        c.plain,
        ("ing",),
        subresources=(status_of("Ingress"),),
    ),
    Kind(
        "networking.k8s.io",
        "v1",
        "IngressClass",
        "ingressclasses",
        False,
        "io.k8s.api.networking.v1.IngressClass",
        Strategy(),
        c.PLAIN,
        c.plain,
    ),
    Kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        True,
        "io.k8s.api.networking.v1.NetworkPolicy",
        Strategy(),
        c.PLAIN,
        c.plain,
        ("netpol",),
    ),
)
