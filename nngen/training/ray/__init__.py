"""The Ray engine: trials on the machines of a Ray cluster. The only room that imports ray.

A slot is an actor that holds a warm local engine on some node. It gets sources and images and sends predictions
back; the accuracies are made in the driver, where the labels stay, and the driver alone writes the archive.
"""

from __future__ import annotations

from nngen.training.ray.cluster import Cluster, Node, Request, connect
from nngen.training.ray.engine import RayEngine

__all__ = ["Cluster", "Node", "RayEngine", "Request", "connect"]
