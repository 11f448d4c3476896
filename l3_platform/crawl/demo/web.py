"""The whole demo web: how many pages of each kind, in which snapshot and file, and the ledger of what was planted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from l3_platform.crawl.demo import planted, synthetic
from l3_platform.crawl.demo.builder import SNAPSHOTS, Builder
from l3_platform.crawl.demo.page import LEDGER, Page
from l3_platform.crawl.demo.warc_writer import warc_file

_STARTS = {SNAPSHOTS[0]: datetime(2024, 2, 12, 6, tzinfo=UTC), SNAPSHOTS[1]: datetime(2024, 6, 17, 6, tzinfo=UTC)}
_SECONDS = 3  # between two fetches


@dataclass(frozen=True)
class Snapshot:
    """One crawl: WARC files by name, and the ledger of what is planted in them."""

    files: dict[str, bytes]
    ledger: pa.Table


def build(pages: int, files: int, seed: int) -> dict[str, Snapshot]:
    """Both snapshots, `pages` responses over them in `files` WARC files each. Raises CrawlError when the text does not suffice."""
    web = Builder(seed)
    made = _planted(web, pages)
    while len(made) < pages:
        draft = web.draft()
        made.append(web.page(draft, web.snapshot(draft.placed.url)))
    _check_unique(made)
    return {name: _snapshot(name, [page for page in made if page.snapshot == name], files) for name in SNAPSHOTS}


def file_names(snapshot: str, files: int) -> list[str]:
    return [f"{snapshot}-{number:05d}.warc.gz" for number in range(files)]


def _planted(web: Builder, pages: int) -> list[Page]:
    """Planted cases in proportion to the size of the web, at least one of each; at 3,000 pages more than twenty."""

    def count(share: float, at_least: int = 1) -> int:
        return max(at_least, round(share * pages))

    lines = min(len(planted.REPEATED_LINES), max(1, pages // 600))
    return [
        *planted.formulas(web, count(0.020)),
        *planted.newer_versions(web, count(0.010)),
        *planted.exact_duplicates(web, count(0.008)),
        *planted.near_duplicates(web, count(0.008)),
        *planted.repeated_lines(web, lines, max(10, min(30, pages // 100))),
        *planted.listed_domains(web, count(0.008)),
        *planted.blocked_words(web, count(0.008)),
        *planted.broken_records(web, count(0.010, at_least=3)),
        *synthetic.personal_data(web, count(0.013)),
        *synthetic.contact_lists(web, count(0.008)),
        *synthetic.spam(web, count(0.008)),
        *synthetic.log_dumps(web, count(0.008)),
        *synthetic.token_dumps(web, count(0.006)),
        *synthetic.foreign_pages(web, count(0.020, at_least=2)),
        *synthetic.wrong_charsets(web, count(0.008, at_least=2)),
        *synthetic.noise(web, count(0.020, at_least=4)),
    ]


def _check_unique(pages: list[Page]) -> None:
    """A page is known by snapshot and URL, so these must tell all pages apart."""
    (key, times), *_ = Counter((page.snapshot, page.url) for page in pages).most_common(1)
    if times > 1:
        raise ValueError(f"demo crawl: {times} pages at {key[1]} in {key[0]}; their URLs must differ")


def _snapshot(name: str, pages: list[Page], files: int) -> Snapshot:
    """Files of consecutive fetches, and the ledger, sorted by URL."""
    pages = sorted(pages, key=lambda page: (page.order, page.url))
    timed = [(page, _STARTS[name] + timedelta(seconds=_SECONDS * i)) for i, page in enumerate(pages)]
    contents, rows = {}, []
    for number, file in enumerate(file_names(name, files)):
        part = timed[number * len(timed) // files : (number + 1) * len(timed) // files]
        contents[file], offsets = warc_file(file, name, part)
        for (page, _), offset in zip(part, offsets, strict=True):
            if page.truth is not None:
                rows.append(_ledger_row(page, file, offset))
    rows.sort(key=lambda row: row["url"])
    return Snapshot(contents, pa.Table.from_pylist(rows, schema=LEDGER))


def _ledger_row(page: Page, file: str, offset: int) -> dict[str, object]:
    truth = page.truth
    assert truth is not None
    return {
        "snapshot": page.snapshot,
        "url": page.url,
        "warc_file": file,
        "warc_offset": offset,
        "kind": truth.kind,
        "stage": truth.stage,
        "expect": truth.expect,
        "twin_url": truth.twin_url,
        "jaccard": truth.jaccard,
        "detail": truth.detail,
    }
