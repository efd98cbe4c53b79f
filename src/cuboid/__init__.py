"""Cuboid: serverless containers, each pod in its own microVM."""

__version__ = "0.1.0"
