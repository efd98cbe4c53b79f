"""Thin, typed doors to Linux: namespaces, mounts, cgroups, capabilities. No policy."""
