"""The cards of `curation_decisions` and `curated_documents`: the funnel, who loses what, and documents of each side to read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from l3_platform.dedup.shards import Beside, aligned
from l3_platform.mix.rules import REASONS
from l3_platform.mix.tally import examples, lost_with_newest, removed_by, tally
from l3_platform.orchestration.card import SAMPLE_SHARDS, Card
from l3_platform.orchestration.charts import funnel, removed
from l3_platform.orchestration.stage import Made

GROUPS = 10  # sources or languages in a table and chart, those with the most documents


def show_decisions(made: Made) -> Card:
    """Samples of each side, and how many older versions of pages went with their newest."""
    lost = lost_with_newest(made.dataset, made.inputs["url_versions"][0], made.settings.engine)
    return Card(
        samples=_sides(_beside(made, made.inputs, curation_decisions=[made.dataset]), made),
        facts={
            "older versions lost with their newest": lost,
            "try other thresholds": "l3 sweep heuristics.dup_ngram_max=0.2,0.3,0.5 quality.min_score=0.05,0.1",
        },
    )


def show_curated(made: Made) -> Card:
    """Records to curated documents, step by step; removal by reason, source and language; samples of each side."""
    steps = funnel_steps(made)
    tallied = tally(_beside(made, made.inputs), made.settings.engine)
    by_source, by_language = (removed_by(tallied, column).slice(0, GROUPS) for column in ("source", "language"))
    charts = {"removed by source": ("source", by_source), "removed by language": ("language", by_language)}
    decided = {**made.catalog.inputs("curation_decisions"), "curation_decisions": made.inputs["curation_decisions"]}
    return Card(
        samples={
            "removed by reason": _reasons(steps, tallied),
            **{heading: _percent(table) for heading, (_, table) in charts.items()},
            **_sides(_beside(made, decided), made),
        },
        chart=funnel(steps),
        charts={f"{heading}, chart": _chart(tallied, column, table) for heading, (column, table) in charts.items()},
    )


def funnel_steps(made: Made) -> list[tuple[str, int]]:
    """What is left after each step: WARC records, documents, after each reason that removed something, curated documents."""
    documents = [dataset.manifest.counts for dataset in made.inputs["documents"]]
    left = sum(counts.kept for counts in documents)
    steps = [("records", sum(counts.records_in for counts in documents)), ("not a page", left), ("documents", left)]
    dropped = made.dataset.manifest.counts.dropped
    for reason in sorted(dropped, key=lambda name: (*REASONS, name).index(name)):
        left -= dropped[reason]
        steps.append((reason, left))
    return [*steps, ("curated", left)]


def _reasons(steps: Sequence[tuple[str, int]], tallied: pa.Table) -> pa.Table:
    """Documents that each reason removes, their share of those that had come so far, and their text."""
    size = {
        row["dropped_by"]: row["bytes_sum"] / 1e6
        for row in tallied.group_by("dropped_by").aggregate([("bytes", "sum")]).to_pylist()
    }
    rows = [
        {
            "reason": name,
            "documents": before - left,
            "of those left": f"{(before - left) / before:.2%}",
            "MB": size.get(name, 0.0),
        }
        for (_, before), (name, left) in itertools.pairwise(steps[2:-1])
    ]
    return pa.Table.from_pylist(rows) if rows else pa.table({"reason": pa.array([], pa.string())})


def _percent(table: pa.Table) -> pa.Table:
    shares = {name: pa.array([f"{share:.1%}" for share in table[name].to_pylist()]) for name in ("removed", "text_kept")}
    for name, column in shares.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _chart(tallied: pa.Table, column: str, groups: pa.Table) -> bytes:
    sizes = dict(zip(groups[column].to_pylist(), groups["documents"].to_pylist(), strict=True))
    parts: dict[str, dict[str, float]] = {group: {} for group in sizes}
    for row in tallied.filter(pc.field("dropped_by").is_valid()).to_pylist():
        group = row[column] or "none"
        if group in parts:
            parts[group][row["dropped_by"]] = parts[group].get(row["dropped_by"], 0.0) + row["documents"] / sizes[group]
    return removed(parts, sizes)


def _sides(beside: Mapping[str, Beside], made: Made) -> dict[str, pa.Table]:
    shards = list(beside.values())
    every = max(1, len(shards) // SAMPLE_SHARDS)
    found = examples(shards[::every][:SAMPLE_SHARDS], made.settings)
    kept, dropped = found.filter(pc.field("dropped_by").is_null()), found.filter(pc.field("dropped_by").is_valid())
    return {"five kept": kept.select(["url", "title", "text"]), "five dropped of each reason": dropped}


def _beside(made: Made, datasets: Mapping[str, Sequence], **more: Sequence) -> dict[str, Beside]:
    return aligned(datasets["documents"], **{name: found for name, found in datasets.items() if name != "documents"}, **more)
