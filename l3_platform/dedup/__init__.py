"""Deduplication by URL, by document (MinHash, verified) and by line (Llama 3, section 3.1.1).

What is public loads on first use: numba takes a second to import, and who asks about a corpus needs none of it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from l3_platform.dedup.clusters import deduplicate
    from l3_platform.dedup.shingles import shingle_hash, signatures

__all__ = ["deduplicate", "shingle_hash", "signatures"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from l3_platform.dedup import clusters, shingles

    return getattr(clusters if name == "deduplicate" else shingles, name)
