"""The Ray engine: trainings on the machines of a Ray cluster. The only package that imports ray.

An actor runs a warm local engine on some node. It gets sources and images and sends predictions back; the accuracies
are computed in the driver, where the labels stay, and only the driver writes the archive.
"""

from __future__ import annotations

from nngen.training.ray.cluster import Cluster, Node, Request, connect
from nngen.training.ray.engine import RayEngine

__all__ = ["Cluster", "Node", "RayEngine", "Request", "connect"]
