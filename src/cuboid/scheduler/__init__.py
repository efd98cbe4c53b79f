"""Chooses nodes for pods: a pure core on a snapshot, and a loop on the API."""
