"""Rows of `networking.k8s.io`: objects that are kept, and acted on by whoever implements them."""

from __future__ import annotations

from cuboid.kube.groups.network_strategy import IngressClassStrategy, IngressStrategy, PolicyStrategy
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.printing import cluster

ROWS: tuple[Kind, ...] = (
    Kind(
        "networking.k8s.io",
        "v1",
        "Ingress",
        "ingresses",
        True,
        "io.k8s.api.networking.v1.Ingress",
        IngressStrategy(),
        cluster.INGRESS,
        cluster.ingress,
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
        IngressClassStrategy(),
        cluster.INGRESS_CLASS,
        cluster.ingress_class,
    ),
    Kind(
        "networking.k8s.io",
        "v1",
        "NetworkPolicy",
        "networkpolicies",
        True,
        "io.k8s.api.networking.v1.NetworkPolicy",
        PolicyStrategy(),
        cluster.POLICY,
        cluster.policy,
        ("netpol",),
    ),
)
