"""The embedded Kubernetes API server: the HTTP edge over `cuboid.kube`, its keys, tokens and its process.

May import `cuboid.kube` and `cuboid.lib`. The node agent, the scheduler and the CLI reach it over HTTPS only.
"""
