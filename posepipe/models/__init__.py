"""Networks, their losses, and their weights."""

from __future__ import annotations

from .weights import LoadedNetwork, available, hashes, load_network, save_network

__all__ = ["LoadedNetwork", "available", "hashes", "load_network", "save_network"]
