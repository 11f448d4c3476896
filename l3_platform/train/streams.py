"""Token streams and mixtures as a training job wants them: local paths a domain, weights a domain."""

from __future__ import annotations

from l3_platform.settings import home
from l3_platform.store import Dataset, files
from l3_platform.tokens.shards import stream_urls
from l3_platform.train.interleave import Mixture


def local_streams(token_shards: Dataset, split: str) -> dict[str, tuple[str, ...]]:
    """Files of each domain that this machine can map into memory; those of an object store are copied here once."""
    cache = home() / "cache" / token_shards.digest
    return {
        domain: tuple(str(files.local_copy(url, cache)) for url in urls)
        for domain, urls in stream_urls(token_shards, split).items()
    }


def mixtures_of(data_mix: Dataset, phase: str) -> tuple[Mixture, ...]:
    """The mixtures of a phase (`pretrain`, `anneal`) in order, domains without a share left out."""
    shares: dict[int, dict[str, float]] = {}
    for row in data_mix.read(["phase", "from_tokens", "domain_group", "share"]).to_pylist():
        if row["phase"] == phase and row["share"] > 0:
            shares.setdefault(row["from_tokens"], {})[row["domain_group"]] = row["share"]
    return tuple(Mixture(from_tokens=start, shares=shares[start]) for start in sorted(shares))
