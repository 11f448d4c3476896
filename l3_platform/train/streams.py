"""Token streams and shares as a training job wants them: local paths a domain, weights a domain."""

from __future__ import annotations

from l3_platform.settings import home
from l3_platform.store import Dataset, files
from l3_platform.tokens.shards import stream_urls


def local_streams(token_shards: Dataset, split: str) -> dict[str, tuple[str, ...]]:
    """Files of each domain that this machine can map into memory; those of an object store are copied here once."""
    cache = home() / "cache" / token_shards.digest
    return {
        domain: tuple(str(files.local_copy(url, cache)) for url in urls)
        for domain, urls in stream_urls(token_shards, split).items()
    }


def shares_of(data_mix: Dataset, phase: str) -> dict[str, float]:
    """Share of each domain in a phase (`pretrain`, `anneal`), domains without a share left out."""
    rows = data_mix.read(["phase", "domain_group", "share"]).to_pylist()
    return {row["domain_group"]: row["share"] for row in rows if row["phase"] == phase and row["share"] > 0}
