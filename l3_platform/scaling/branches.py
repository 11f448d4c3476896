"""The sweep with one run a size: it stays at its peak rate, and each budget is a decay that branches off (Hägele et al. 2024).

Of the tokens of all points of a size, only the longest one's stable part and the decays are trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence

from l3_platform.engine import Output
from l3_platform.scaling.isoflop import WARMUP_SHARE, PointTask, as_output, as_row, job_fields


def by_size(tasks: Sequence[PointTask]) -> Mapping[str, tuple[PointTask, ...]]:
    """The points of each size under its name, fewest tokens first."""
    found: dict[str, tuple[PointTask, ...]] = {}
    for task in sorted(tasks, key=lambda task: (task.point.model.layers, task.point.tokens)):
        name = f"layers-{task.point.model.layers:03d}"
        found[name] = (*found.get(name, ()), task)
    return found


def run_size(tasks: Sequence[PointTask]) -> Output:
    """Train all points of a size in this process: a row of `RUNS` each. Raises TrainingError.

    Warm-up is that of the shortest point, since all share it.
    """
    from l3_platform.train.branch import complete
    from l3_platform.train.job import TrainJob
    from l3_platform.train.loop import train

    rows, stable, parent = [], 0, ""
    with tempfile.TemporaryDirectory(prefix="isoflop-") as folder:
        for task in tasks:
            shared = {"schedule": "wsd", "warmup_tokens": int(WARMUP_SHARE * tasks[0].point.tokens)}
            turn = _stable_tokens(task)
            if turn > stable:
                fields = job_fields(task, f"{folder}/stable-{turn}") | shared
                job = TrainJob(**fields, total_tokens=turn, branch_from=parent, checkpoint_every_tokens=turn, keep_checkpoints=1)
                train(job)
                stable, parent = turn, str(complete(job.folder)[0])
            fields = job_fields(task, f"{folder}/{task.point.name}") | shared
            decay = TrainJob(
                **fields,
                total_tokens=task.point.tokens,
                decay_tokens=task.point.tokens - stable,
                branch_from=parent,
                held_out=dict(task.held_out),
            )
            rows.append(as_row(task.point, train(decay)))
    return as_output(rows)


def _stable_tokens(task: PointTask) -> int:
    """Where a point leaves the stable run: after whole batches, one at least."""
    scaling = task.settings.scaling
    stable = round((1.0 - scaling.decay_share) * task.point.tokens) // scaling.batch_tokens * scaling.batch_tokens
    return max(scaling.batch_tokens, min(stable, task.point.tokens - scaling.seq_len))
