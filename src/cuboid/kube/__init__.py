"""The Kubernetes API as data and machinery: types, store, watch cache, patches, validation, client.

May import `cuboid.lib` and nothing else of Cuboid. Knows nothing of HTTP servers, nodes or virtual machines.
"""
