"""The whole chain, WARC files to decisions: `l3 run` beside datatrove's FineWeb filters, whole processes, the same files.

Ours does more in its time: identification of languages, personal data, duplicates of URLs and documents, outlier tokens, the scores
of a quality classifier, an account of every record, checks and cards; the peer extracts and filters. Ours trains the classifier
first, or takes the one so trained, as the peer takes its lists; so it runs before the peer and once more after it, since a
machine's pace may change in the quarter of an hour that the peer takes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil
from rich.console import Console
from rich.table import Table

from benchmarks import debian_crawl, ratios

WORKERS = 2
WARM_UP = 60  # pages of an untimed first run
FOLDER = Path(".bench")
L3, TENTH, PEER = "l3", "l3, a tenth", "datatrove, FineWeb filters"
GIVEN, AGAIN = "l3, classifier given", "l3, classifier given, after the peer"


@dataclass(frozen=True)
class Run:
    """What a whole process took, start-up included, children too."""

    seconds: float
    core_seconds: float  # of all processes: what stays comparable on a busy machine
    peak: int  # bytes: sum of PSS, so shared pages count once
    output: Path


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=30_000, help="pages of the crawl; a tenth of them is the small one")
    parser.add_argument("--peer-pages", type=int, default=0, help="give the peer a smaller crawl, 0: the same")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", choices=["l3", "datatrove"], help="leave the other out")
    options = parser.parse_args(arguments)
    folder = options.folder.absolute()
    try:
        small, large = (debian_crawl.build(pages, folder) for pages in (options.pages // 10, options.pages))
        theirs = debian_crawl.build(options.peer_pages or options.pages, folder)
    except debian_crawl.NoDebian as error:
        print(f"whole chain: skipped, {error}")
        return
    runs: dict[str, tuple[Run, Sequence[Path]]] = {}
    if options.only != "datatrove":
        curate(debian_crawl.build(WARM_UP, folder), folder)  # compiles the kernels, once an installation
        runs[TENTH] = curate(small, folder), small
        runs[L3] = curate(large, folder), large
        (trained,) = (folder / "home" / "data" / "quality_classifier").glob("*/*/files/quality.bin")
        model = trained.rename(folder / "quality.bin")
        runs[GIVEN] = curate(large, folder, {"quality.model": model}), large
    if options.only != "l3":
        runs[PEER] = datatrove(theirs, folder), theirs
    if not options.only:
        runs[AGAIN] = curate(large, folder, {"quality.model": folder / "quality.bin"}), large
    _show(runs)


def curate(files: Sequence[Path], folder: Path, more: Mapping[str, object] = MappingProxyType({})) -> Run:
    """`l3 run` up to the decisions in a fresh home, which stays for a look."""
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    command = [
        sys.executable,
        "-c",
        "from l3_platform.cli import main; main()",
        "run",
        "--source",
        "files",
        "--select",
        "*curation_decisions",
    ]
    settings = {"crawl.paths": f"{files[0].parent}/*.warc.gz", "engine.workers": WORKERS, **more}
    command += [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return _timed(command, home, {"L3_HOME": str(home)})


def datatrove(files: Sequence[Path], folder: Path) -> Run:
    output = folder / "datatrove"
    shutil.rmtree(output, ignore_errors=True)
    unpack = "from benchmarks.datatrove_chain import unpack_lists; unpack_lists()"  # once an installation as well
    subprocess.run([sys.executable, "-c", unpack], check=True, capture_output=True)
    return _timed([sys.executable, "-m", "benchmarks.datatrove_chain", str(files[0].parent), str(output), str(WORKERS)], output)


def _timed(command: Sequence[str], output: Path, environment: dict[str, str] | None = None) -> Run:
    output.mkdir(parents=True)
    with open(output / "log", "w") as log:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | (environment or {}))
        watch = _Watch(process.pid)
        watch.start()
        code = process.wait()
        seconds = time.monotonic() - started
        watch.join()
    if code:
        raise SystemExit(f"{' '.join(command)} ended with {code}:\n{(output / 'log').read_text()[-2000:]}")
    return Run(seconds, sum(watch.core_seconds.values()), watch.peak, output)


class _Watch(threading.Thread):
    """Sees, some times a second, how much time a process and all below it have taken, and each second how much memory."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0
        self.core_seconds: dict[tuple[int, float], float] = {}  # process and its start: user and system time so far

    def run(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            looks = itertools.count()
            while process.status() != psutil.STATUS_ZOMBIE:
                tree = [process, *process.children(recursive=True)]
                if next(looks) % 4 == 0:  # the kernel walks all pages of a process for it, which waits meanwhile
                    self.peak = max(self.peak, sum(_pss(member.pid) for member in tree))
                for member in tree:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        times = member.cpu_times()
                        self.core_seconds[member.pid, member.create_time()] = times.user + times.system
                time.sleep(0.25)


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (OSError, ValueError):
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def _show(runs: dict[str, tuple[Run, Sequence[Path]]]) -> None:
    title = "Whole chain: WARC to decisions, whole processes with their start-up"
    table = Table("who", "pages", "MB of HTML", "seconds", "pages/s", "core seconds", "peak MB", title=title)
    for name, (run, files) in runs.items():
        pages, html = debian_crawl.size(files)
        cells = (html / 1e6, run.seconds, pages / run.seconds, run.core_seconds, run.peak / 1e6)
        table.add_row(name, f"{pages:,}", *(f"{cell:,.1f}" for cell in cells))
    Console().print(table)
    if L3 in runs and PEER in runs:
        for ours in (L3, GIVEN, AGAIN):
            ratio, cores = _ratio(runs, ours, "seconds"), _ratio(runs, ours, "core_seconds")
            print(f"{ours} makes {ratio:.1f} times the pages a second (bar 15), {cores:.1f} times those a core second")
        both = (_ratio(runs, GIVEN, "seconds") + _ratio(runs, AGAIN, "seconds")) / 2
        ratios.note("whole chain, pages a second: datatrove's FineWeb filters", both, bar=15, aim=30)
    if L3 in runs:
        (large, many), (small, few) = runs[L3], runs[TENTH]
        more = debian_crawl.size(many)[1] / debian_crawl.size(few)[1]
        print(f"{more:.1f} times the HTML took {large.seconds / small.seconds:.1f} times the time (bar {1.05 * more:.1f})")
        print(f"peak memory {large.peak / 2**30:.2f} GiB, all processes (bar 2)")


def _ratio(runs: dict[str, tuple[Run, Sequence[Path]]], name: str, measure: str) -> float:
    """Pages a second of ours over the peer's."""
    ours, theirs = (debian_crawl.size(files)[0] / getattr(run, measure) for run, files in (runs[name], runs[PEER]))
    return ours / theirs


if __name__ == "__main__":
    main(sys.argv[1:])
