"""The runtime's side of the Container Network Interface, specification 1.0.0 and 1.1.0: configuration, execution,
results. Knows nothing of taps or of Cuboid's records."""
