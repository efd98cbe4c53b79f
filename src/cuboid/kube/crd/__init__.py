"""Custom resources: kinds that users define. Knows schemas and objects, no HTTP and, but for `serving`, no store."""
