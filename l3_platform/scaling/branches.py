"""The sweep with one run a size: it stays at its peak rate, and each budget is a decay that branches off (Hägele et al. 2024).

Of the tokens of all points of a size, only the longest one's stable part and the decays are trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence

import pyarrow as pa

from l3_platform.engine import Counts, Output
from l3_platform.scaling.isoflop import RUNS, PointTask, as_output, as_row, point_job
from l3_platform.scaling.proxy import WARMUP_SHARE, failed


def by_size(tasks: Sequence[PointTask]) -> Mapping[str, tuple[PointTask, ...]]:
    """The points of each size under its name, fewest tokens first."""
    found: dict[str, tuple[PointTask, ...]] = {}
    for task in sorted(tasks, key=lambda task: (task.point.model.layers, task.point.tokens)):
        name = f"layers-{task.point.model.layers:03d}"
        found[name] = (*found.get(name, ()), task)
    return found


def run_size(tasks: Sequence[PointTask]) -> Output:
    """Train all points of a size in this process: a row of `RUNS` each. Where a run diverges, its point and those after it, which
    would branch from the same run, have failed.

    Warm-up is that of the shortest point, since all share it.
    """
    from l3_platform.train.branch import complete
    from l3_platform.train.job import TrainingError
    from l3_platform.train.loop import train

    rows, stable, parent = [], 0, ""
    shared = {"schedule": "wsd", "warmup_tokens": int(WARMUP_SHARE * tasks[0].point.tokens)}
    with tempfile.TemporaryDirectory(prefix="isoflop-") as folder:
        try:
            for task in tasks:
                turn = _stable_tokens(task)
                if turn > stable:
                    once = {"branch_from": parent, "checkpoint_every_tokens": turn, "keep_checkpoints": 1, "held_out": {}}
                    job = point_job(task, f"{folder}/stable-{turn}", turn, **shared, **once)
                    train(job)
                    stable, parent = turn, str(complete(job.folder)[0])
                decay = {"decay_tokens": task.point.tokens - stable, "branch_from": parent}
                done = train(point_job(task, f"{folder}/{task.point.name}", task.point.tokens, **shared, **decay))
                rows.append(as_row(task.point, done))
        except TrainingError as error:
            lost = [failed(RUNS, task.point.name, error) for task in tasks[len(rows) :]]
            counts = Counts.total([Counts.annotated(len(rows)), *(one.counts for one in lost)])
            quarantine = pa.concat_tables([one.quarantine for one in lost])
            return Output(pa.Table.from_pylist(rows, schema=RUNS), counts, quarantine)
    return as_output(rows)


def _stable_tokens(task: PointTask) -> int:
    """Where a point leaves the stable run: after whole batches, one at least."""
    scaling = task.settings.scaling
    stable = round((1.0 - scaling.decay_share) * task.point.tokens) // scaling.batch_tokens * scaling.batch_tokens
    return max(scaling.batch_tokens, min(stable, task.point.tokens - scaling.seq_len))
