"""Settings of the API server, table `[server]`."""

from __future__ import annotations

from dataclasses import dataclass

from cuboid.kube.names import SERVICE_SUBNET
from cuboid.lib.settings import setting


@dataclass(frozen=True)
class ServerSettings:
    host: str = setting("127.0.0.1", why="one machine serves itself; open it to others on purpose only")
    port: int = setting(6443, why="the port of every Kubernetes API server; 0 takes a free one")
    advertise_host: str = setting("", why="name or address written into kubeconfigs and the certificate, host if empty")
    uid: int = setting(64_100, why="unprivileged user id that serves when started as root; 0 keeps root")
    pod_overhead_mib: int = setting(
        0, unit="MiB", why="memory of a machine beside its containers, told as spec.overhead; 0: only requests count"
    )
    toleration_seconds: int = setting(
        4, unit="s", why="a pod that names no time leaves a node that is not heard of so soon after that is noticed"
    )
    mount_account_tokens: bool = setting(
        True, why="put the token of its service account into every pod that does not refuse it, as Kubernetes does"
    )
    controllers: bool = setting(
        True,
        why="keep workloads and choose nodes in the server's process; without it, `python -m cuboid.controllers --all` "
        "and `python -m cuboid.scheduler` do",
    )
    oidc_issuer: str = setting("", why="https URL of an OpenID Connect provider whose users are let in; empty: none")
    oidc_client_id: str = setting("", why="the audience that the provider's tokens must be for")
    oidc_username_claim: str = setting("sub", why="the claim that is the user's name")
    oidc_username_prefix: str = setting(
        "", why="before the name; empty: the issuer and `#`, unless names are e-mail addresses; `-`: nothing"
    )
    oidc_groups_claim: str = setting("", why="the claim that lists the user's groups; empty: none are taken over")
    oidc_groups_prefix: str = setting("", why="before each group's name")
    oidc_ca_file: str = setting("", why="PEM file of the CA of the provider; empty: those of this machine")
    audit_mib: int = setting(64, unit="MiB", why="size of one file of the audit log; 0 for none")
    audit_files: int = setting(5, why="older files of the audit log that are kept")
    service_subnet: str = setting(
        SERVICE_SUBNET, why="addresses of services, the same as [net] service_subnet; must not overlap the pods'"
    )
    tenant_node_ports: bool = setting(False, why="let tenants have Services of type NodePort: ports of this machine")
    body_limit: int = setting(3 * 1024 * 1024, unit="B", why="the limit of Kubernetes for one request body")
    request_seconds: float = setting(
        60.0, unit="s", why="a request other than a watch or stream that takes longer ends"
    )
    body_seconds: float = setting(30.0, unit="s", why="a client must send its body within this time")
    stall_seconds: float = setting(30.0, unit="s", why="a watcher that takes nothing for this long is cut off")
    max_requests: int = setting(64, why="requests worked on at once; more wait, each tenant in its turn, or get 429")
    max_streams: int = setting(4_096, why="watches, logs and exec sessions open at once")
    flow_streams: int = setting(1_024, why="those of one tenant or user; nodes and controllers have no such limit")
    body_bytes: int = setting(
        128 * 1024 * 1024, unit="B", why="request bodies in memory at once, of one tenant or user a quarter of it"
    )
    bookmark_seconds: float = setting(60.0, unit="s", why="how often an idle watch learns the newest version")
    watch_seconds: float = setting(1_800.0, unit="s", why="shortest life of a watch that names none, as in Kubernetes")
    backup_hours: float = setting(1.0, unit="h", why="between two backups of all objects; 0 makes none")
    history: int = setting(20_000, why="events kept on disk for watches that resume after a restart")
    dns_port: int = setting(
        10_053, why="where the resolver of pods listens on loopback, [node] dns_port; 0: there is none, as in a cluster"
    )
    cluster_domain: str = setting("cluster.local", why="last part of the names of services, [node] cluster_domain")
