"""mix: the one decision over all sidecars, then tokens, then shares."""

from datetime import timedelta
from typing import Any

import dagster as dg
import pyarrow.compute as pc

from l3_platform.engine import Output
from l3_platform.orchestration import planted
from l3_platform.orchestration.card import Card, bars
from l3_platform.orchestration.curation_card import show_curated, show_decisions
from l3_platform.orchestration.stage import Build, Built, Check, Made, Verdict, stage_asset
from l3_platform.store import Counts


def _removal_in_bounds(made: Made) -> Verdict:
    """A stage that drops nearly all, or nothing at all, of a source is a bug until somebody has looked."""
    counts = made.dataset.manifest.counts
    share = sum(counts.dropped.values()) / max(counts.records_in, 1)
    return Verdict(share < 0.9, {"dropped": f"{share:.1%} of {counts.records_in:,} documents"})


@stage_asset(
    group="mix",
    kinds={"duckdb", "sql"},
    checks=[Check("removal_rate_in_bounds", _removal_in_bounds, blocking=True, description="less than 90 % dropped")],
    show=show_decisions,
)
def curation_decisions(build: Build) -> Built:
    """The rules over the sidecars, as one SQL statement: for every document, the first rule that drops it, or none."""
    from l3_platform.mix.curated import build_curation_decisions

    return build_curation_decisions(**build.inputs, out=build.out, settings=build.settings)


@stage_asset(
    group="mix",
    kinds={"parquet"},
    checks=[planted.MASKED],
    show=show_curated,
    freshness=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=10)),
)
def curated_documents(build: Build) -> Built:
    """What is trained on: kept documents without repeated lines, personal data masked."""
    from l3_platform.mix.curated import build_curated_documents

    return build_curated_documents(**build.inputs, out=build.out, settings=build.settings)


@stage_asset(group="mix", kinds={"huggingface"})
def tokenizer(build: Build) -> Built:
    """Byte-level BPE with Llama 3's pre-tokenisation and special tokens, trained on a sample of the training split."""
    from l3_platform.tokens.build import build_tokenizer

    return build_tokenizer(**build.inputs, out=build.out, settings=build.settings)


def _show_tokens(made: Made) -> Card:
    index = made.dataset.read(["split", "domain_group", "tokens", "bytes"])
    by_split = index.group_by(["split", "domain_group"]).aggregate([("tokens", "sum")]).sort_by("domain_group").to_pylist()
    tokens = {f"{row['split']} {row['domain_group']}": row["tokens_sum"] for row in by_split}
    return Card(chart=bars(tokens, unit="tokens"), facts={"tokens": pc.sum(index["tokens"]).as_py()})


def _both_splits(made: Made) -> Verdict:
    splits = made.dataset.read(["split"])["split"].value_counts().to_pylist()
    by_split = {str(row["values"]): int(row["counts"]) for row in splits}
    return Verdict({"train", "held_out"} <= set(by_split), by_split)


@stage_asset(
    group="mix",
    kinds={"numpy"},
    checks=[
        Check(
            "both_splits_have_documents",
            _both_splits,
            blocking=True,
            description="something to train on, something held out",
        )
    ],
    show=_show_tokens,
)
def token_shards(build: Build) -> Built:
    """Memory-mapped token streams a split and domain, and an index from every document to its tokens."""
    from l3_platform.tokens.build import build_token_shards

    return build_token_shards(**build.inputs, out=build.out, settings=build.settings)


def _shares_sum_to_one(made: Made) -> Verdict:
    table = made.dataset.read(["phase", "from_tokens", "share"])
    summed = table.group_by(["phase", "from_tokens"]).aggregate([("share", "sum")]).to_pylist()
    sums = {f"{row['phase']} from {row['from_tokens']:,} tokens": row["share_sum"] for row in summed}
    return Verdict(all(abs(total - 1.0) < 1e-9 for total in sums.values()), sums)


def _show_mix(made: Made) -> Card:
    rows = made.dataset.read().to_pylist()
    shares = {_mixture(row): round(row["share"], 4) for row in rows}
    return Card(samples={"mix": made.dataset.read()}, chart=bars(shares, unit="share of tokens"))


def _mixture(row: dict[str, Any]) -> str:
    since = f" from {row['from_tokens']:,}" if row["from_tokens"] else ""
    return f"{row['phase']}{since} {row['domain_group']}"


@stage_asset(group="mix", kinds={"arrow"}, checks=[Check("shares_sum_to_one", _shares_sum_to_one, blocking=True)], show=_show_mix)
def data_mix(build: Build) -> Built:
    """Shares of tokens a domain, changes on the way included: 50/25/17/8, or what the law found, as far as the data reach
    (Llama 3, section 3.1.2)."""
    from l3_platform.mix.data_mix import data_mix as shares
    from l3_platform.scaling.mixture_build import found_mixture
    from l3_platform.tokens.build import tokens_by_domain

    available = tokens_by_domain(build.input("token_shards"))
    found = found_mixture(build.input("mixture_law")) if "mixture_law" in build.inputs else None
    table = shares(available, build.settings.mix, sum(available.values()), build.settings.anneal.tokens, found)
    build.out.put("part-00000", Output(table, Counts.annotated(table.num_rows)))
    return ["part-00000"], {}
