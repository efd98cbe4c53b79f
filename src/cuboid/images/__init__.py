"""Images: from a registry, an archive or a layout to one read-only block device. Runs nothing of a tenant's."""
