"""Sharded data parallelism. `Mesh` is free of torch; the rest is imported from its module."""

from l3_platform.parallel.mesh import Mesh, mesh_for

__all__ = ["Mesh", "mesh_for"]
