"""The cards of data value: what a candidate set is, and how it ranks beside the others."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from l3_platform.data_value.value import HARMFUL, USEFUL, Value, read_value
from l3_platform.orchestration.card import SAMPLE_ROWS, Card, failures
from l3_platform.orchestration.charts import INK, KEPT, REMOVED
from l3_platform.orchestration.mixture_card import interval_chart
from l3_platform.orchestration.stage import Made

COLORS = {USEFUL: KEPT, HARMFUL: REMOVED}


def show_candidate(made: Made) -> Card:
    """Five documents, evenly over the set, and what it is."""
    documents = made.dataset.read()
    rows = range(0, documents.num_rows, max(1, documents.num_rows // SAMPLE_ROWS))[:SAMPLE_ROWS]
    candidate = made.settings.data_value.candidates[made.partition]
    return Card(
        samples={"documents": documents.take(pa.array(rows, pa.int64())), **failures(made.dataset)},
        facts={"documents": documents.num_rows, **candidate.model_dump(exclude_defaults=True)},
    )


def show_value(made: Made) -> Card:
    """All candidate sets that have been judged, best first, and the annealings of this one."""
    ranked = ranking(made)
    by_domain = made.dataset.manifest.metrics.get("by domain", {})
    place = [one.candidate for one in ranked].index(made.partition) + 1 if read_value(made.dataset) else None
    return Card(
        facts={"rank": f"{place} of {len(ranked)}"} if place else {},
        samples={
            "all candidate sets": pa.table({"seen": [one.in_words for one in ranked]}),
            "value of each domain, nats a token": pa.table({"domain": list(by_domain), "value": list(by_domain.values())}),
            "annealings": made.dataset.read(),
            **failures(made.dataset),
        },
        chart=ranking_chart(ranked) if ranked else None,
    )


def ranking(made: Made) -> list[Value]:
    """Best first; sets that are not made with these settings are left out."""
    found = [made.catalog.find("data_value", partition) for partition in made.catalog.partitions("data_value")]
    values = [value for dataset in found if dataset and (value := read_value(dataset))]
    return sorted(values, key=lambda value: -value.mean)


def ranking_chart(values: Sequence[Value]) -> bytes:
    """Value and interval of each set; right of zero is better than the default mix."""
    rows = [(f"{one.candidate}: {one.verdict}", COLORS.get(one.verdict, INK), one) for one in values]
    return interval_chart(rows, "held-out loss saved against the default mix, nats a token (mean and 90 % interval)")
