"""How contestants are started: Python's under uvicorn, others on servers of their own."""

from __future__ import annotations

from benchmarks.launchers.nginx import Nginx
from benchmarks.launchers.node import Node
from benchmarks.launchers.uvicorn import Uvicorn

__all__ = ["Nginx", "Node", "Uvicorn"]
