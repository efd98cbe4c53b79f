"""The kinds that are built in, one module per API group."""
