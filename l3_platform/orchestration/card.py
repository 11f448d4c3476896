"""The card of an asset: what a person wants to see before trusting a dataset. Samples first; people judge data by reading it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pyarrow as pa

from l3_platform import svg
from l3_platform.engine import connect
from l3_platform.store import Dataset

if TYPE_CHECKING:
    from l3_platform.orchestration.resources import Tracking
    from l3_platform.orchestration.stage import Made

SAMPLE_SHARDS, SAMPLE_ROWS, EXCERPT_CHARS = 8, 5, 160


@dataclass(frozen=True)
class Card:
    """What a stage adds to what every card shows. `samples`: heading to a small table; `chart`: SVG or PNG under 100 kB; `charts`:
    more of them, by heading."""

    samples: Mapping[str, pa.Table] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    chart: bytes | None = None
    charts: Mapping[str, bytes] = field(default_factory=dict)


def card(made: Made, extra: Card, tracking: Tracking) -> dict[str, Any]:
    """Dagster metadata of one dataset."""
    manifest, cost = made.dataset.manifest, made.cost
    counts, seconds = manifest.counts, float(cost.get("seconds", 0.0))
    metadata: dict[str, Any] = {
        "dagster/row_count": manifest.rows,
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, kind) for name, kind in manifest.columns.items()]),
        "records in": counts.records_in,
        "kept": counts.kept,
        "dropped": sum(counts.dropped.values()),
        "quarantined": counts.failed,
        "bytes": manifest.bytes,
        "seconds": seconds,
        "records a second": round(counts.records_in / seconds, 1) if seconds else 0.0,
        "path": dg.MetadataValue.path(made.dataset.folder),
        "digest": manifest.digest,
        "made from": dg.MetadataValue.json(manifest.inputs),
        **{name: _value(value) for name, value in {**manifest.metrics, **extra.facts}.items()},
    }
    reasons = {**counts.dropped, **({"quarantined": counts.failed} if counts.failed else {})}
    if reasons:
        metadata["drop reasons"] = dg.MetadataValue.table(
            [dg.TableRecord({"reason": reason, "records": count}) for reason, count in sorted(reasons.items(), key=_descending)]
        )
    for heading, table in extra.samples.items():
        metadata[heading] = dg.MetadataValue.md(markdown(table))
    chart = extra.chart or (bars({"kept": counts.kept, **reasons}) if reasons else None)
    for heading, picture in (({"chart": chart} if chart else {}) | dict(extra.charts)).items():
        kind = "svg+xml" if picture.startswith(b"<svg") else "png"
        metadata[heading] = dg.MetadataValue.md(f"![{heading}](data:image/{kind};base64,{base64.b64encode(picture).decode()})")
    if tracking.uri and cost.get("mlflow"):
        metadata["MLflow"] = dg.MetadataValue.url(tracking.uri + cost["mlflow"])
    return metadata


def _descending(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _value(value: Any) -> Any:
    return dg.MetadataValue.json(value) if isinstance(value, dict | list) else value


def samples(
    documents: Sequence[Dataset], sidecars: Sequence[Dataset], cases: Mapping[str, str], columns: str
) -> dict[str, pa.Table]:
    """Rows of a sidecar beside the page they speak of. `cases`: heading to an SQL predicate over sidecar `s`, document `d`."""
    shards = [shard for dataset in documents for shard in dataset.shards][:SAMPLE_SHARDS]
    names = {shard.name for shard in shards} | {shard.key for shard in shards}
    notes = [shard.read() for dataset in sidecars for shard in dataset.shards if shard.name in names]
    if not shards or not notes:
        return {}
    pages = [_with_place(shard.read(["doc_id", "url", "title", "fetch_time"]), number) for number, shard in enumerate(shards)]
    connection = connect_for_samples(d=pa.concat_tables(pages), s=pa.concat_tables(notes))
    texts: dict[int, pa.ChunkedArray] = {}  # read only where a sample lies, which is seldom everywhere
    found = {}
    for heading, predicate in cases.items():
        rows = connection.sql(
            f"SELECT d.url, {columns}, d.__shard, d.__row "
            f"FROM s JOIN d USING (doc_id) WHERE {predicate} ORDER BY hash(doc_id) LIMIT {SAMPLE_ROWS}"
        ).to_arrow_table()
        excerpts = []
        for number, row in zip(rows["__shard"].to_pylist(), rows["__row"].to_pylist(), strict=True):
            texts.setdefault(number, shards[number].read(["text"])["text"])
            excerpts.append(" ".join((texts[number][row].as_py() or "")[: 8 * EXCERPT_CHARS].split())[:EXCERPT_CHARS])
        found[heading] = rows.drop_columns(["__shard", "__row"]).append_column("text", pa.array(excerpts, pa.string()))
    return found


def _with_place(table: pa.Table, shard: int) -> pa.Table:
    rows = pa.array(range(table.num_rows), pa.int64())
    return table.append_column("__shard", pa.repeat(shard, table.num_rows)).append_column("__row", rows)


def connect_for_samples(**tables: pa.Table) -> Any:
    from l3_platform.settings import Engine

    connection = connect(Engine())
    for name, table in tables.items():
        connection.register(name, table)
    return connection


def markdown(table: pa.Table) -> str:
    """A small table as Markdown; long cells are cut, so a card stays readable."""
    if not table.num_rows:
        return "none"
    lines = ["| " + " | ".join(table.column_names) + " |", "|" + "---|" * table.num_columns]
    lines += ["| " + " | ".join(_cell(value) for value in row.values()) + " |" for row in table.to_pylist()]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "'")
    return text[: EXCERPT_CHARS * 2] + ("…" if len(text) > EXCERPT_CHARS * 2 else "")


def failures(dataset: Dataset) -> dict[str, pa.Table]:
    """What failed and why, as a sample for the card; nothing where nothing did."""
    return {"failed": dataset.quarantine().select(["file", "reason", "detail"])} if dataset.manifest.counts.failed else {}


def bars(values: Mapping[str, float], unit: str = "records") -> bytes:
    """Horizontal bars, the largest on top, as SVG."""
    names = sorted(values, key=lambda name: -values[name])
    left, most = 16 + svg.CHAR * max(map(len, names), default=0), max(values.values(), default=0.0) or 1.0
    axes = svg.Axes(left, 8, 320, 20 * len(names), x=(0.0, most), y=(0.0, float(len(names))))
    for row, name in enumerate(names):
        middle = len(names) - row - 0.5
        axes.bar((0.0, values[name]), (middle - 0.4, middle + 0.4), svg.BLUE if name == "kept" else svg.ORANGE)
        axes.note(0.0, middle, name, "end")
        axes.note(values[name], middle, svg.short(values[name]))
    axes.frame(x_label=unit)
    return svg.picture(left + 390, 20 * len(names) + 44, axes)


def histogram(values: Sequence[float], xlabel: str, threshold: float | None = None) -> bytes:
    counts, edges = np.histogram(values, bins=40)
    low, high = (min(edges[0], threshold), max(edges[-1], threshold)) if threshold is not None else (edges[0], edges[-1])
    most = 1.05 * max(counts.max(), 1)
    axes = svg.Axes(64, 10, 370, 125, x=(float(low), float(high)), y=(0.0, float(most)))
    for count, start, end in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        axes.bar((start, end), (0.0, count))
    if threshold is not None:
        axes.line([(threshold, 0.0), (threshold, most)], svg.ORANGE, 1.5)
        axes.key([(svg.ORANGE, f"threshold {threshold:g}")], left=320)
    axes.frame(xlabel, "documents")
    return svg.picture(450, 175, axes)


def new_figure(height: float, width: float = 5.0) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
