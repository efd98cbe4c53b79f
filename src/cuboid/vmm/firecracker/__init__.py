"""The Firecracker driver: each VM is one Firecracker process behind its own jailer, spoken to over its API socket."""
