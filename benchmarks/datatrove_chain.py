"""datatrove's FineWeb filters over a folder of WARC files, as a process of its own: FOLDER OUTPUT WORKERS.

The blocks and arguments are those of datatrove's examples/fineweb.py. Its language filter is left out, since its model must be
downloaded: so pages of all languages go on, as they do here. MinHash comes after these filters there and is left out too.
A task a worker, so that each reads the block lists once.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    URLFilter,
)
from datatrove.pipeline.readers import WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter


def main(folder: str, output: str, workers: int) -> None:
    stats = LocalPipelineExecutor(
        pipeline=[
            WarcReader(folder, glob_pattern="*.warc.gz", default_metadata={"dump": "debian"}),
            URLFilter(),
            Trafilatura(favour_precision=True),
            GopherRepetitionFilter(),
            GopherQualityFilter(),
            C4QualityFilter(filter_no_terminal_punct=False),
            FineWebQualityFilter(),
            JsonlWriter(f"{output}/kept"),
        ],
        tasks=workers,
        workers=workers,
        logging_dir=f"{output}/logs",
        start_method="forkserver",
    ).run()
    seconds = {block.name: block.time_stats.total for block in stats.stats}
    Path(output, "seconds.json").write_text(json.dumps(seconds))


def unpack_lists() -> None:
    """The block lists that come with datatrove, which it unpacks where they are first used."""
    URLFilter().download_data()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
