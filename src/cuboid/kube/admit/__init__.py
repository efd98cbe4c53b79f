"""Admission plug-ins: what Kubernetes decides about a write beyond its validation, and what keeps tenants apart.

Each is a class with a memory view (the watch cache) and no I/O; see `cuboid.kube.admission` for what it may do.
"""
