"""What keeps the workloads of the API as they were asked for: one module per kind, run by `cuboid.kube.controller`."""
