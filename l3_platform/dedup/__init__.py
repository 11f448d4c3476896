"""Deduplication by URL, by document (MinHash, verified) and by line (Llama 3, section 3.1.1)."""

from l3_platform.dedup.clusters import deduplicate
from l3_platform.dedup.shingles import shingle_hash, signatures

__all__ = ["deduplicate", "shingle_hash", "signatures"]
