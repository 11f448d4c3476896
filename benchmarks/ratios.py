"""The one table at the end of `make bench-curation`: every part notes how many times a peer's pace, or score, ours is."""

from __future__ import annotations

import json
import os
from pathlib import Path

from rich.console import Console
from rich.table import Table

NOTES = "L3_BENCHMARK_NOTES"  # a file, where the parts are run together


def note(what: str, ratio: float, bar: float | None = None, aim: float | None = None) -> None:
    """Ours over theirs, such as `note("WARC reading beside warcio 1.8.1", 1.6)`. Does nothing where a part is run alone."""
    if path := os.environ.get(NOTES):
        with open(path, "a") as notes:
            notes.write(json.dumps({"what": what, "ratio": ratio, "bar": bar, "aim": aim}) + "\n")


def show(path: Path) -> None:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    table = Table("ours beside", "ratio", "bar", "aim", title="Ratios of this run")
    for row in rows:
        missed = row["bar"] is not None and row["ratio"] < row["bar"]
        cells = (row["ratio"], row["bar"], row["aim"])
        table.add_row(row["what"], *("" if cell is None else f"{cell:.2f}" for cell in cells), style="red" if missed else None)
    Console().print(table)
