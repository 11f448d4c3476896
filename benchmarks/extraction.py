"""Main content beside trafilatura and resiliparse: F1 on pages with gold text, and pages a second on one core, in one process.

    python -m benchmarks.extraction ../shared/data/extraction/wcxb-dev.parquet

F1 is that of multisets of tokens, its mean over pages. Ours is five-fold: no page is judged by weights that were learned from its
site, so this trains five times (some minutes). Speed is of the shipped weights: the same pages in turn, each engine's fastest of
ROUNDS.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from l3_platform.extract import extract
from l3_platform.extract.train import FOLDS, chosen_by, f1, folds, read_examples
from l3_platform.settings import Extract

ROUNDS = 3
PEERS = ("trafilatura", "resiliparse")
DATA = Path(__file__).parents[2] / "shared" / "data" / "extraction" / "wcxb-dev.parquet"


def main(path: Path = DATA, judged: int = FOLDS, every: int = 5) -> None:
    """Prints the table. `judged`: folds that ours is trained and judged on; speed is measured on each `every`th page."""
    rows = pq.read_table(path, columns=["html", "main_content"]).to_pylist()
    engines = {f"l3 {metadata.version('l3-platform')}": Extract()}
    engines |= {f"{peer} {metadata.version(peer)}": Extract(engine=peer) for peer in PEERS}
    rates = list(pages_per_second([row["html"] for row in rows[::every]], list(engines.values())))
    table = Table("who", "mean F1", "pages/s", "l3 is so many times as fast", title=f"Extraction: {len(rows)} pages of {path.name}")
    for (name, settings), rate in zip(engines.items(), rates, strict=True):
        quality = five_fold(path, judged) if settings.engine == "l3" else mean_f1(rows, settings)
        table.add_row(name, f"{quality:.4f}", f"{rate:,.1f}", f"{rates[0] / rate:.2f}")
    Console().print(table)


def five_fold(path: Path, judged: int = FOLDS) -> float:
    """Mean F1 of our extractor on pages of sites that its weights were not learned from."""
    scores = [
        example.score(chosen_by(weights, example.layout))
        for tested, weights in folds(read_examples(path), judged)
        for example in tested
    ]
    return float(np.mean(scores))


def mean_f1(rows: list[dict[str, Any]], settings: Extract) -> float:
    return float(np.mean([f1(extract(row["html"], settings=settings).text, row["main_content"]) for row in rows]))


def pages_per_second(pages: list[bytes], engines: list[Extract]) -> Iterator[float]:
    """Rates in the order of `engines`."""
    ways: list[Callable[[], object]] = [
        lambda settings=settings: [extract(page, settings=settings) for page in pages] for settings in engines
    ]
    seconds = [[] for _ in engines]
    for settings in engines:
        extract(pages[0], settings=settings)
    for _ in range(ROUNDS):
        for way, times in zip(ways, seconds, strict=True):
            started = time.process_time()
            way()
            times.append(time.process_time() - started)
    return (len(pages) / min(times) for times in seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parquet", type=Path, nargs="?", default=DATA)
    parser.add_argument("--folds", type=int, default=FOLDS)
    options = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    main(options.parquet, options.folds)
