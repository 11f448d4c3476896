"""Datasets on disk or object storage: shards, manifests, accounts, quarantine, locks."""

from l3_platform.store.account import Counts, Output, Unbalanced
from l3_platform.store.dataset import QUARANTINE_SCHEMA, Dataset, Manifest, MissingDataset, Shard, Writer
from l3_platform.store.files import StoreError
from l3_platform.store.lock import Lock, Locked

__all__ = [
    "QUARANTINE_SCHEMA",
    "Counts",
    "Dataset",
    "Lock",
    "Locked",
    "Manifest",
    "MissingDataset",
    "Output",
    "Shard",
    "StoreError",
    "Unbalanced",
    "Writer",
]
