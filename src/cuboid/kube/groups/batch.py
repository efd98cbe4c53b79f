"""Rows of `batch`: work that ends."""

from __future__ import annotations

from cuboid.kube import columns as c
from cuboid.kube.groups.batch_strategy import CronJobStrategy, JobStrategy
from cuboid.kube.kind import Kind, status_of

ROWS: tuple[Kind, ...] = (
    Kind(
        "batch",
        "v1",
        "Job",
        "jobs",
        True,
        "io.k8s.api.batch.v1.Job",
        JobStrategy(),
        c.PLAIN,
        c.plain,
        categories=("all",),
        subresources=(status_of("Job"),),
    ),
    Kind(
        "batch",
        "v1",
        "CronJob",
        "cronjobs",
        True,
        "io.k8s.api.batch.v1.CronJob",
        CronJobStrategy(),
        c.PLAIN,
        c.plain,
        ("cj",),
        categories=("all",),
        subresources=(status_of("CronJob"),),
    ),
)
