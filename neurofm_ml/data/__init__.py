"""Data: readers, recordings on disk, quality, windows, splits, shards, the loader, the simulation with known truth."""

from neurofm_ml.data.readers import read
from neurofm_ml.knowledge.cards import SignalSpec

__all__ = ["SignalSpec", "read"]
