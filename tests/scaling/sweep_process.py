"""`python -m tests.scaling.sweep_process FOLDER`: a sweep of six points, which says in FOLDER/trained which ones it trains."""

from __future__ import annotations

import sys
from pathlib import Path

from l3_platform.engine import Output, map_shards
from l3_platform.scaling.isoflop import PointTask, points, run_point
from l3_platform.settings import Engine, Settings
from l3_platform.store import Writer
from tests.scaling.small_corpus import SETTINGS, VOCAB, corpus

LAYERS, BUDGETS = (1, 2, 3), (1e10, 1.2e10)


def sweep(folder: Path) -> Writer:
    (folder / "streams").mkdir(exist_ok=True)
    streams = corpus(folder / "streams")
    settings = Settings.model_validate(
        {
            "scaling": SETTINGS.scaling.model_dump() | {"layers": LAYERS, "budgets": BUDGETS, "max_epochs": 1e9},
            "model": SETTINGS.model,
        }
    )
    tasks = {
        point.name: (str(folder / "trained"), PointTask(point, streams, {"code": 0.5, "math": 0.5}, settings))
        for point in points(settings, VOCAB, 10**6)
    }
    out = writer(folder)
    out.commit(map_shards(noted, tasks, out, Engine(workers=2)))
    return out


def writer(folder: Path) -> Writer:
    return Writer(str(folder / "sweep"), asset="isoflop_runs", partition="all", code_version="1", settings={}, inputs={})


def noted(task: tuple[str, PointTask]) -> Output:
    log, point = task
    output = run_point(point)
    with open(log, "a") as stream:
        stream.write(point.point.name + "\n")
    return output


if __name__ == "__main__":
    sweep(Path(sys.argv[1]))
