"""The node agent's HTTPS API: a kubelet's endpoints and Cuboid's own below `/cuboid/v1`. Only the API server calls it.

May use the contracts of guest, images and storage and `cuboid.node.access`; knows nothing of how pods are made.
"""
