"""Checks against the ledger of planted cases: what share of them a stage caught, and whom it accused wrongly.

Only the demo crawl knows the truth about its pages; for every other source these checks pass and say so.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from l3_platform.crawl.fetch import ledger
from l3_platform.lineage import STAGES
from l3_platform.orchestration.card import connect_for_samples
from l3_platform.orchestration.stage import Check, Made, Verdict
from l3_platform.store import Dataset

Page = tuple[str, str]  # snapshot, url
Row = Mapping[str, Any]

RECALL, FALSE_ALARMS = 0.98, 0.01
EXACT = {"newer_version", "exact_duplicate", "broken"}  # kinds of which nothing may be missed
STAGE_OF_KEPT = {"math": "documents", "near_duplicate": "duplicate_documents"}  # rows that no stage should touch: who might


def check(stage: str) -> Check:
    """`planted_cases` of a stage: recall by kind at least 98 % (100 % where it is exact), false alarms at most 1 %."""
    return Check(
        "planted_cases",
        functools.partial(_judge, stage),
        description="recall and false alarms on what the demo crawl planted",
    )


def _judge(stage: str, made: Made) -> Verdict:
    truth = _truth(made)
    if not truth:
        return Verdict(True, {"ledger": "none: only the demo crawl plants cases"})
    rows = [row for row in truth if (row["stage"] or STAGE_OF_KEPT.get(row["kind"])) == stage]
    found = _FOUND[stage](made, rows)
    kinds: dict[str, list[bool]] = {}
    for row, caught in zip(rows, found.caught, strict=True):
        if row["expect"] != "any":
            kinds.setdefault(f"{row['kind']}, {row['expect']}", []).append(caught)
    recall = {kind: sum(caught) / len(caught) for kind, caught in sorted(kinds.items())}
    accused = found.accused - {(row["snapshot"], row["url"]) for row in truth}
    clean = max(found.clean, 1)
    passed = all(value >= _bar(kind) for kind, value in recall.items())
    facts: dict[str, Any] = {kind: f"{value:.3f} of {len(kinds[kind])}" for kind, value in recall.items()}
    facts["false alarms"] = f"{len(accused) / clean:.4f} of {clean:,} clean pages"
    if accused:
        facts["accused wrongly"] = ", ".join(sorted(url for _, url in accused)[:5])
    return Verdict(passed and len(accused) / clean <= FALSE_ALARMS, facts)


def _bar(kind: str) -> float:
    """What is to be dropped by an exact rule, or kept by any, allows no miss."""
    name, _, expect = kind.partition(", ")
    return 1.0 if name in EXACT or (name, expect) == ("near_duplicate", "keep") else RECALL


class Found:
    """What a stage did: for each ledger row whether it came out as planted, whom it accused, how many clean pages it saw."""

    def __init__(self, caught: Iterable[bool], accused: set[Page], clean: int) -> None:
        self.caught, self.accused, self.clean = list(caught), accused, clean


def _truth(made: Made) -> list[dict[str, Any]]:
    """Ledger rows of the snapshots that the dataset spans."""
    partitions = made.catalog.snapshots if not STAGES[made.dataset.manifest.asset].by_snapshot else [made.partition]
    tables = [ledger(made.catalog.dataset("raw_crawl", partition)) for partition in partitions]
    return [row for table in tables if table is not None for row in table.to_pylist()]


def _documents(made: Made) -> list[Dataset]:
    partitions = made.catalog.snapshots if not STAGES[made.dataset.manifest.asset].by_snapshot else [made.partition]
    return [made.catalog.dataset("documents", partition) for partition in partitions]


def _pages(made: Made, columns: str, *documents_columns: str) -> Sequence[Row]:
    """Sidecar values beside snapshot and url of their document."""
    pages = pa.concat_tables([one.read(["doc_id", "snapshot", "url", *documents_columns]) for one in _documents(made)])
    connection = connect_for_samples(d=pages, s=made.dataset.read())
    return connection.sql(f"SELECT d.snapshot, d.url, {columns} FROM s JOIN d USING (doc_id)").to_arrow_table().to_pylist()


def _flagged(predicate: str) -> Callable[[Made, Sequence[Row]], Found]:
    """A stage whose sidecar flags a page where an SQL predicate over `s` holds; expect `keep` rows must not be flagged."""

    def found(made: Made, rows: Sequence[Row]) -> Found:
        pages = _pages(made, f"({predicate}) AS flagged")
        flagged = {(page["snapshot"], page["url"]) for page in pages if page["flagged"]}
        caught = [((row["snapshot"], row["url"]) in flagged) == (row["expect"] != "keep") for row in rows]
        return Found(caught, flagged, len(pages))

    return found


def _extracted(made: Made, rows: Sequence[Row]) -> Found:
    """documents: broken records in quarantine at their offset, noise dropped, text of maths and odd charsets there."""
    lost = made.dataset.quarantine().to_pylist()
    places = {(row["file"], row["offset"]) for row in lost if row["reason"]}
    texts = {(page["snapshot"], page["url"]): page["text"] for page in _pages(made, "d.text", "text")}

    def as_planted(row: Row) -> bool:
        if row["expect"] == "quarantine":
            return (row["warc_file"], row["warc_offset"]) in places
        text = texts.get((row["snapshot"], row["url"]))
        if row["expect"] == "drop":
            return text is None
        return text is not None and all(_plain(part) in _plain(text) for part in _parts(row["detail"]))

    planted = {(row["warc_file"], row["warc_offset"]) for row in rows if row["expect"] == "quarantine"}
    wrong = {(row["snapshot"], row["url"]) for row in lost if (row["file"], row["offset"]) not in planted}
    return Found(map(as_planted, rows), wrong, len(texts))


def _parts(detail: str) -> list[str]:
    try:
        parsed = json.loads(detail)
    except ValueError:
        return [detail] if detail else []
    return [str(part) for part in parsed] if isinstance(parsed, list) else [detail]


def _plain(text: str) -> str:
    return "".join(text.split())


def _identified(made: Made, rows: Sequence[Row]) -> Found:
    languages = {(page["snapshot"], page["url"]): page["language"] for page in _pages(made, "s.language")}
    foreign = {page for page, language in languages.items() if language not in ("en", "und")}
    return Found((languages.get((row["snapshot"], row["url"])) == row["detail"] for row in rows), foreign, len(languages))


def _lines(made: Made, rows: Sequence[Row]) -> Found:
    """repeated_lines: the planted line is among those removed from its page."""
    removed: dict[Page, set[str]] = {}
    pages = _pages(made, "s.removed_lines, d.text", "text")
    for page in pages:
        lines = page["text"].split("\n")
        gone = {" ".join(lines[index].split()) for index in page["removed_lines"] or ()}
        removed.setdefault((page["snapshot"], page["url"]), set()).update(gone)
    caught = [" ".join(row["detail"].split()) in removed.get((row["snapshot"], row["url"]), set()) for row in rows]
    return Found(caught, set(), len(pages))


def _repetitive_or_dirty(made: Made, rows: Sequence[Row]) -> Found:
    limits = made.settings.heuristics
    return _flagged(
        f"s.dup_ngram_max > {limits.dup_ngram_max} OR s.dup_line_char_fraction > {limits.dup_line_max} "
        f"OR s.dirty_words > {limits.dirty_words_max}"
    )(made, rows)


def _outlying(made: Made, rows: Sequence[Row]) -> Found:
    return _flagged(f"s.kl > {made.settings.heuristics.max_kl}")(made, rows)


def _masked(made: Made) -> Verdict:
    """None of the personal data that were planted stands in the text that is trained on."""
    planted = {(row["snapshot"], row["url"]): row["detail"] for row in _truth(made) if row["stage"] == "pii"}
    left, looked_for = [], 0
    for page in made.dataset.read(["snapshot", "url", "text"]).to_pylist():
        for value in _parts(planted.get((page["snapshot"], page["url"]), "")):
            looked_for += 1
            left += [value] if value in page["text"] else []
    share = len(left) / max(looked_for, 1)
    return Verdict(
        share <= 1 - RECALL, {"planted values": looked_for, "left in the text": len(left), "such as": ", ".join(left[:3])}
    )


MASKED = Check("personal_data_is_masked", _masked, description="planted personal data in the text that is trained on")

_FOUND: dict[str, Callable[[Made, Sequence[Row]], Found]] = {
    "documents": _extracted,
    "url_policy": _flagged("s.blocked_by IS NOT NULL"),
    "languages": _identified,
    "text_heuristics": _repetitive_or_dirty,
    "outlier_tokens": _outlying,
    "pii": _flagged("s.emails + s.phones + s.ips + s.ibans + s.cards > 0"),
    "url_versions": _flagged("NOT s.newest"),
    "duplicate_documents": _flagged("s.representative = false"),
    "repeated_lines": _lines,
}
