"""Block devices and network file systems for pods. Never mounts or parses a tenant's file system on the host."""
