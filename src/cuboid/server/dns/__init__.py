"""The resolver of pods: names of services from the watch cache, all others from the host's own resolvers."""
