"""Rows of `batch`: work that ends."""

from __future__ import annotations

from cuboid.kube.groups.batch_strategy import CronJobStrategy, JobStrategy
from cuboid.kube.kind import Kind, status_of
from cuboid.kube.printing import batch

ROWS: tuple[Kind, ...] = (
    Kind(
        "batch",
        "v1",
        "Job",
        "jobs",
        True,
        "io.k8s.api.batch.v1.Job",
        JobStrategy(),
        batch.JOB,
        batch.job,
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
        batch.CRON_JOB,
        batch.cron_job,
        ("cj",),
        categories=("all",),
        subresources=(status_of("CronJob"),),
    ),
)
